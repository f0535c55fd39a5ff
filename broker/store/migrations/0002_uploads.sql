-- What a job was given, once it is whole: pictures from 0 on, in the order in which they came, and at -1 what its user
-- typed. Where it lies and how long it is; never what it says.

CREATE TABLE uploads (
    job_id      uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    n           integer NOT NULL CHECK (n >= -1),
    what        text NOT NULL CHECK (what IN ('upload', 'parameters')),
    blob        text NOT NULL,
    key_id      bytea NOT NULL CHECK (octet_length(key_id) = 16),
    incarnation bytea NOT NULL CHECK (octet_length(incarnation) = 16),
    media_type  text NOT NULL,
    size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (job_id, n),
    CONSTRAINT parameters_come_first CHECK ((n = -1) = (what = 'parameters'))
);

-- Jobs that the release before has admitted have one picture each: the newest pair of an open blob and its key.
INSERT INTO uploads (job_id, n, what, blob, key_id, incarnation, media_type, size_bytes)
SELECT jobs.id, 0, 'upload', blob.ref, decode(key.ref, 'hex'), decode(key.detail, 'hex'),
       jobs.media_type, jobs.upload_bytes
FROM jobs,
     LATERAL (SELECT ref FROM custody
              WHERE job_id = jobs.id AND holder = 'blob' AND what = 'upload' ORDER BY id DESC LIMIT 1) AS blob,
     LATERAL (SELECT ref, detail FROM custody
              WHERE job_id = jobs.id AND holder = 'key' AND what = 'upload' ORDER BY id DESC LIMIT 1) AS key
WHERE jobs.state IN ('queued', 'running');
