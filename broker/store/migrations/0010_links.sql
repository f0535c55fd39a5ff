-- Who signs in to the app reaches the same id on every device: the app's own server links a subject to it, of which a hash
-- under a key of this deployment is all that is kept. And sessions of browsers. Everything goes with its user.

CREATE TABLE links (
    subject    bytea PRIMARY KEY CHECK (octet_length(subject) = 32),
    user_id    text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_on date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date
);
CREATE INDEX links_by_user ON links (user_id);

-- Tokens beside the one that a user was made with; each came of a link, and ends with it.
CREATE TABLE link_tokens (
    hash         bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    subject      bytea NOT NULL REFERENCES links (subject) ON DELETE CASCADE,
    user_id      text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_on   date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date,
    last_seen_on date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date
);
CREATE INDEX link_tokens_by_subject ON link_tokens (subject);
CREATE INDEX link_tokens_by_user ON link_tokens (user_id);

CREATE TABLE sessions (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    user_id    text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    subject    bytea REFERENCES links (subject) ON DELETE CASCADE,  -- whose token it came of, where that was a link's
    ends_at    timestamptz NOT NULL,   -- whatever happens
    idle_until timestamptz NOT NULL    -- moved on by each use
);
CREATE INDEX sessions_by_user ON sessions (user_id, ends_at);
CREATE INDEX sessions_by_subject ON sessions (subject) WHERE subject IS NOT NULL;
