from src.simulator.client import ControlClient
from src.simulator.config import ModelConfig, SimulatorConfig
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw, hang_up


def test_health_is_an_empty_200(raw: Raw) -> None:
    for path in ("/healthz", "/readyz"):
        answer = raw.get(path)
        assert (answer.status, answer.body) == (200, b"")


def test_the_version_says_what_it_is(raw: Raw) -> None:
    version = raw.get("/version").json["version"]

    assert version.startswith("simulated LocalAI (inference-manager ")


def test_models_have_an_id_and_nothing_else(raw: Raw) -> None:
    names = [*SimulatorConfig().models, "loose-file"]
    expected = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

    assert raw.get("/v1/models").json == expected
    assert raw.get("/models").json == expected


def test_models_can_be_filtered(raw: Raw) -> None:
    names = [item["id"] for item in raw.get("/v1/models?filter=im-[ci]").json["data"]]

    assert names == ["sim-chat", "sim-image"]
    assert raw.get("/v1/models?filter=(").status == 500


def test_a_loose_file_has_null_for_capabilities(raw: Raw) -> None:
    data = raw.get("/v1/models/capabilities").json["data"]

    assert data[0] == {
        "id": "sim-chat",
        "object": "model",
        "capabilities": ["chat", "completion", "tools", "thinking"],
        "input_modalities": ["text"],
        "output_modalities": ["text"],
    }
    assert {item["id"]: item["capabilities"] for item in data[1:-1]} == {
        "sim-vision": ["chat", "vision", "tools"],
        "sim-image": ["image"],
        "sim-embed": ["embeddings", "rerank"],
        "sim-voice": ["transcript", "tts", "sound_generation"],
        "sim-video": ["video"],
    }
    assert data[2]["input_modalities"] == ["text", "image"]
    assert data[-1] == {
        "id": "loose-file",
        "object": "model",
        "capabilities": None,
        "input_modalities": None,
        "output_modalities": None,
    }


def test_what_is_probed_late_is_told_only_after_the_first_load() -> None:
    late = {"sim-vision": ModelConfig(probed_late=True)}

    with Simulator(SimulatorConfig(speed=0, models=late)) as simulator:
        raw = Raw(simulator)
        before = raw.get("/v1/models/capabilities").json["data"][1]
        tags_before = raw.get("/api/tags").json["models"][1]
        raw.post("/backend/load", {"model": "sim-vision"})
        raw.post("/backend/shutdown", {"model": "sim-vision"})
        after = raw.get("/v1/models/capabilities").json["data"][1]

    assert (before["capabilities"], before["input_modalities"]) == (["chat"], ["text"])
    assert tags_before["capabilities"] == ["completion"]
    assert after["capabilities"] == ["chat", "vision", "tools"]
    assert after["input_modalities"] == ["text", "image"]


def test_ollamas_lists_are_there_too_with_a_tag_on_each_name(raw: Raw) -> None:
    tags = raw.get("/api/tags").json["models"]
    assert tags[1] == {
        "name": "sim-vision:latest",
        "model": "sim-vision:latest",
        "capabilities": ["completion", "vision", "tools"],
    }

    raw.chat("repeat: hi")

    assert raw.get("/api/ps").json == {
        "models": [{"name": "sim-chat:latest", "model": "sim-chat:latest"}]
    }


def test_a_name_with_a_tag_keeps_it_in_ollamas_lists() -> None:
    with Simulator(SimulatorConfig(speed=0, models={"words:3b": ModelConfig()})) as simulator:
        names = [model["name"] for model in Raw(simulator).get("/api/tags").json["models"]]

    assert "words:3b" in names


def test_a_model_is_loaded_and_shut_down_by_name(raw: Raw) -> None:
    loaded = raw.post("/backend/load", {"model": "sim-image"})
    listed = raw.get("/system").json
    stopped = raw.post("/backend/shutdown", {"model": "sim-image"})

    assert loaded.json == {"loaded": ["sim-image"], "message": "model loaded"}
    assert listed == {"backends": ["simulator"], "loaded_models": [{"id": "sim-image"}]}
    assert (stopped.status, stopped.json) == (200, {"message": "model stopped"})
    assert raw.get("/system").json["loaded_models"] == []


def test_loading_needs_a_model_and_shutting_down_a_loaded_one(raw: Raw) -> None:
    assert raw.post("/backend/load", {}).status == 400
    assert raw.post("/backend/load", {"model": "nobody"}).status == 404
    assert raw.post("/backend/shutdown", {"model": "sim-image"}).json == {
        "error": {"code": 404, "message": "Resource not found", "type": ""}
    }


def test_loading_fails_like_any_load(raw: Raw, control: ControlClient) -> None:
    control.add_fault("load_failure")

    statuses = [raw.post("/backend/load", {"model": "sim-chat"}).status for _ in range(2)]

    assert statuses == [500, 503]


def test_a_shutdown_gives_up_on_a_busy_model(raw: Raw, control: ControlClient) -> None:
    control.hold()
    connection = raw.open_chat("hello")
    control.wait(state="started")

    answer = raw.post("/backend/shutdown", {"model": "sim-chat"})

    assert answer.status == 500
    hang_up(connection)
