"""`doctor`: looks at everything that has to fit together, and says what to do where it does not."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ..models.modality import Modality
from ..settings import Settings
from .configuration import make_app, read_models, read_settings
from .hosting import PortTaken, is_loopback, listen
from .offer import look
from .remote import find
from .terminal import Colour, Failure, coloured, program, say, say_json

_PATIENCE = 5.0
Verdict = Literal["ok", "warn", "fail"]
_COLOURS: dict[Verdict, Colour] = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(BaseModel):
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    detail: str


class Findings(BaseModel):
    """What `doctor --json` prints."""

    ok: bool
    findings: list[Finding]


def doctor(localai_url: str | None, *, as_json: bool) -> None:
    """Look at everything; fail if something must be changed before the server works.

    Raises:
        Failure: something must be changed.

    """
    findings: list[Finding] = []
    for finding in _findings(localai_url):
        findings.append(finding)
        if not as_json:
            verdict = coloured(f"{finding.verdict:<4}", _COLOURS[finding.verdict])
            say(f"{verdict}  {finding.check:<9}  {finding.detail}")
    failed = [finding.check for finding in findings if finding.verdict == "fail"]
    if as_json:
        say_json(Findings(ok=not failed, findings=findings))
    if failed:
        raise Failure(f"to be changed: {', '.join(failed)}")


def _findings(localai_url: str | None) -> Iterator[Finding]:
    yield _ok("python", f"{sys.version.split()[0]}, {sys.executable}")
    try:
        settings = read_settings(localai_url=localai_url)
    except Failure as failure:
        yield _fail("settings", str(failure))
        return
    config = "config.yaml and the environment" if Path("config.yaml").is_file() else "environment"
    yield _ok("settings", f"read from {config}")
    try:
        definitions = read_models(settings)
    except Failure as failure:
        yield _fail("models", str(failure))
        return
    yield _ok("models", f"{len(definitions)} definitions in {settings.models_dir}/")
    yield _log(settings)
    yield _store(settings)
    try:
        make_app(settings)
    except Failure as failure:
        yield _fail("app", str(failure))
        return
    yield from _backends(settings)
    yield _port(settings)


def _log(settings: Settings) -> Finding:
    file = settings.log_file
    if file is None:
        return _ok("log", "to the console only")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = not file.exists()
        with file.open("a", encoding="utf-8"):
            pass
        if fresh:
            file.unlink()
    except OSError as error:
        return _warn(
            "log", f"{file} cannot be written: {error.strerror}; choose another file: IM_LOG_FILE"
        )
    return _ok("log", f"{file.resolve()} can be written")


def _store(settings: Settings) -> Finding:
    if (path := settings.store_path) is None:
        return _ok("store", "in memory: jobs are gone when the server stops")
    place = path.resolve()
    directory = next(parent for parent in place.parents if parent.exists())
    if directory.is_dir() and os.access(directory, os.W_OK) and not place.is_dir():
        return _ok("store", f"{place} can be written")
    return _fail("store", f"{place} cannot be written; choose another file: IM_STORE")


def _backends(settings: Settings) -> Iterator[Finding]:
    offers = asyncio.run(look(settings, patience=_PATIENCE))
    for offer, backend in zip(offers.each, settings.pool, strict=True):
        if offer.reachable:
            yield _ok(offer.name, f"{offer.url}, {offer.version}")
        else:
            where = "in backends" if settings.backends else "with LOCALAI_URL"
            advice = f"; say where it is {where}, or try `{program()} demo`"
            yield _fail(
                offer.name, f"{offer.url}: {offer.trouble}{'' if offer.advised else advice}"
            )
        if not backend.verify:
            yield _warn(offer.name, "its TLS certificate is not verified; name a ca_bundle instead")
    if len(offers.silent) == len(offers.each):
        return
    catalog = offers.catalog
    for modality in Modality:
        names = catalog.models(modality)
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            yield _ok(str(modality), shown)
        else:
            yield _warn(
                str(modality),
                f"no model; install one, or say in {settings.models_dir}/ which one is for it",
            )
    if not offers.silent:
        for mismatch in catalog.mismatches():
            yield _warn("models", mismatch)


def _port(settings: Settings) -> Finding:
    where = f"port {settings.port} on {settings.host}"
    try:
        listen(settings.host, settings.port).close()
    except PortTaken as failure:
        host = settings.host if is_loopback(settings.host) else "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        if (health := find(f"http://{host}:{settings.port}").health) is not None:
            return _ok("port", f"{where}: our server, version {health.version}, {health.status}")
        return _fail("port", f"{failure}, or with IM_PORT")
    except Failure as failure:
        return _fail("port", str(failure))
    return _ok("port", f"{where} is free")


def _ok(check: str, detail: str) -> Finding:
    return Finding(check=check, verdict="ok", detail=detail)


def _warn(check: str, detail: str) -> Finding:
    return Finding(check=check, verdict="warn", detail=detail)


def _fail(check: str, detail: str) -> Finding:
    return Finding(check=check, verdict="fail", detail=detail)
