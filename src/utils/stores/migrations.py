"""The tables, as numbered steps from an empty database to today's.

A step that has been released never changes. Every statement is one that PostgreSQL can run too;
`{number}` is the one place where the two differ.
"""

from collections.abc import Sequence

SQLITE_NUMBER = "number INTEGER PRIMARY KEY AUTOINCREMENT"
"""A column that counts the rows; PostgreSQL: `BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY`."""

_JOBS = (
    """
    CREATE TABLE jobs(
      {number},
      id TEXT NOT NULL UNIQUE,
      modality TEXT NOT NULL,
      level BIGINT NOT NULL,
      sequence BIGINT NOT NULL,
      caller TEXT NOT NULL,
      model TEXT,
      state TEXT NOT NULL,
      version BIGINT NOT NULL,
      fence BIGINT NOT NULL,
      attempts BIGINT NOT NULL,
      crashes BIGINT NOT NULL,
      backend TEXT NOT NULL,
      submitted_at DOUBLE PRECISION NOT NULL,
      deadline DOUBLE PRECISION NOT NULL,
      started_at DOUBLE PRECISION,
      ended_at DOUBLE PRECISION,
      retry_at DOUBLE PRECISION,
      promised BIGINT NOT NULL,
      key TEXT NOT NULL,
      fingerprint TEXT NOT NULL,
      retry_of TEXT NOT NULL,
      batch TEXT NOT NULL,
      line BIGINT NOT NULL,
      webhook TEXT NOT NULL,
      error_code TEXT NOT NULL,
      error TEXT,
      size_bytes BIGINT NOT NULL,
      disk_bytes BIGINT NOT NULL,
      kept_bytes BIGINT NOT NULL,
      purge_at DOUBLE PRECISION,
      checksum BIGINT NOT NULL)
    """,
    "CREATE INDEX jobs_state ON jobs(state, number)",
    "CREATE INDEX jobs_caller ON jobs(caller, number)",
    "CREATE INDEX jobs_sequence ON jobs(sequence)",
    "CREATE INDEX jobs_purge ON jobs(purge_at) WHERE purge_at IS NOT NULL",
    "CREATE INDEX jobs_ended ON jobs(ended_at, kept_bytes) WHERE ended_at IS NOT NULL",
    "CREATE INDEX jobs_batch ON jobs(batch, line) WHERE batch <> ''",
    "CREATE INDEX jobs_retries ON jobs(retry_of) WHERE retry_of <> ''",
    """
    CREATE TABLE payloads(
      job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs(id) ON DELETE CASCADE,
      kind TEXT NOT NULL,
      request TEXT NOT NULL,
      checksum BIGINT NOT NULL)
    """,
    """
    CREATE TABLE results(
      job_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs(id) ON DELETE CASCADE,
      body TEXT NOT NULL,
      checksum BIGINT NOT NULL)
    """,
    """
    CREATE TABLE events(
      job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
      version BIGINT NOT NULL,
      state TEXT NOT NULL,
      at DOUBLE PRECISION NOT NULL,
      attempt BIGINT NOT NULL,
      detail TEXT NOT NULL,
      PRIMARY KEY(job_id, version))
    """,
    """
    CREATE TABLE keys(
      caller TEXT NOT NULL,
      key TEXT NOT NULL,
      fingerprint TEXT NOT NULL,
      job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
      PRIMARY KEY(caller, key))
    """,
    "CREATE INDEX keys_job ON keys(job_id)",
    """
    CREATE TABLE blobs(
      key TEXT NOT NULL PRIMARY KEY,
      job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
      size BIGINT NOT NULL)
    """,
    "CREATE INDEX blobs_job ON blobs(job_id)",
)

_CONTROLS = (
    """
    CREATE TABLE controls(
      kind TEXT NOT NULL,
      name TEXT NOT NULL,
      at DOUBLE PRECISION NOT NULL,
      who TEXT NOT NULL,
      PRIMARY KEY(kind, name))
    """,
    """
    CREATE TABLE audit(
      {number},
      at DOUBLE PRECISION NOT NULL,
      who TEXT NOT NULL,
      action TEXT NOT NULL,
      about TEXT NOT NULL,
      before TEXT NOT NULL,
      after TEXT NOT NULL)
    """,
)

_BATCHES = (
    """
    CREATE TABLE files(
      id TEXT NOT NULL PRIMARY KEY,
      caller TEXT NOT NULL,
      name TEXT NOT NULL,
      purpose TEXT NOT NULL,
      size BIGINT NOT NULL,
      created_at DOUBLE PRECISION NOT NULL,
      expires_at DOUBLE PRECISION)
    """,
    "CREATE INDEX files_caller ON files(caller, created_at, id)",
    "CREATE INDEX files_expire ON files(expires_at) WHERE expires_at IS NOT NULL",
    """
    CREATE TABLE batches(
      id TEXT NOT NULL PRIMARY KEY,
      caller TEXT NOT NULL,
      endpoint TEXT NOT NULL,
      input_file TEXT NOT NULL,
      completion_window TEXT NOT NULL,
      base_url TEXT NOT NULL,
      output_file TEXT NOT NULL,
      error_file TEXT NOT NULL,
      created_at DOUBLE PRECISION NOT NULL,
      expires_at DOUBLE PRECISION NOT NULL,
      keep_s DOUBLE PRECISION,
      metadata TEXT,
      state TEXT NOT NULL,
      problems TEXT NOT NULL,
      total BIGINT NOT NULL,
      completed BIGINT NOT NULL,
      failed BIGINT NOT NULL,
      next_line BIGINT NOT NULL,
      next_at BIGINT NOT NULL,
      output_bytes BIGINT NOT NULL,
      error_bytes BIGINT NOT NULL,
      in_progress_at DOUBLE PRECISION,
      finalizing_at DOUBLE PRECISION,
      cancelling_at DOUBLE PRECISION,
      over_at DOUBLE PRECISION,
      ended_at DOUBLE PRECISION)
    """,
    "CREATE INDEX batches_caller ON batches(caller, created_at, id)",
    "CREATE INDEX batches_live ON batches(created_at) WHERE ended_at IS NULL",
    "CREATE INDEX batches_ended ON batches(ended_at) WHERE ended_at IS NOT NULL",
    """
    CREATE TABLE open_lines(
      batch TEXT NOT NULL REFERENCES batches(id) ON DELETE CASCADE,
      number BIGINT NOT NULL,
      at BIGINT NOT NULL,
      size BIGINT NOT NULL,
      job TEXT NOT NULL,
      PRIMARY KEY(batch, number))
    """,
)

_DELIVERIES = (
    """
    CREATE TABLE deliveries(
      id TEXT NOT NULL PRIMARY KEY,
      job_id TEXT NOT NULL,
      host TEXT NOT NULL,
      url TEXT NOT NULL,
      body TEXT NOT NULL,
      state TEXT NOT NULL,
      tries BIGINT NOT NULL,
      said TEXT NOT NULL,
      created_at DOUBLE PRECISION NOT NULL,
      tried_at DOUBLE PRECISION,
      next_at DOUBLE PRECISION)
    """,
    "CREATE INDEX deliveries_due ON deliveries(next_at, id) WHERE next_at IS NOT NULL",
    "CREATE INDEX deliveries_host ON deliveries(host, next_at) WHERE next_at IS NOT NULL",
    "CREATE INDEX deliveries_job ON deliveries(job_id)",
)

MIGRATIONS: Sequence[Sequence[str]] = [
    [
        *_JOBS,
        *_DELIVERIES,
        *_BATCHES,
        *_CONTROLS,
    ],
]
"""What brings a database from version n (the index) to n + 1."""
