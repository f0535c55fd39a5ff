-- Notices, one row for each version, and what users agreed to or withdrew: rows are added and never changed.

CREATE TABLE notices (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version      text NOT NULL UNIQUE,
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),  -- of the facts, which are in no language
    facts        jsonb NOT NULL,
    announced_at timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    CONSTRAINT announced_before_effective CHECK (effective_at >= announced_at)
);

-- One that was announced before an earlier one took effect takes its place.
CREATE FUNCTION notice_in_force() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT version FROM notices AS notice
    WHERE effective_at <= now()
      AND NOT EXISTS (SELECT FROM notices AS later
                      WHERE later.number > notice.number AND later.announced_at < notice.effective_at)
    ORDER BY number DESC LIMIT 1
$$;

CREATE TABLE consents (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    user_id    text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    notice     text NOT NULL REFERENCES notices (version),
    purpose    text NOT NULL,
    event      text NOT NULL CHECK (event IN ('given', 'withdrawn')),
    stated_age smallint CHECK (stated_age > 0),  -- how many years old, at least; null: was not asked
    method     text NOT NULL CHECK (method IN ('app', 'operator')),
    at         timestamptz NOT NULL DEFAULT date_trunc('second', now()),
    CONSTRAINT whole_second CHECK (extract(microseconds FROM at)::bigint % 1000000 = 0)
);
CREATE INDEX consents_by_user ON consents (user_id, number);

-- Both tables only grow; a user's consents go with the user, whose row is gone by the time that the cascade comes here.
CREATE FUNCTION keep_consents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'consents' THEN
        IF NOT EXISTS (SELECT FROM users WHERE id = OLD.user_id) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'rows are only added' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER consents_kept BEFORE UPDATE OR DELETE ON consents
    FOR EACH ROW EXECUTE FUNCTION keep_consents();
CREATE TRIGGER notices_kept BEFORE UPDATE OR DELETE ON notices
    FOR EACH ROW EXECUTE FUNCTION keep_consents();
-- TRUNCATE passes by the triggers of rows.
CREATE TRIGGER all_consents_kept BEFORE TRUNCATE ON consents
    FOR EACH STATEMENT EXECUTE FUNCTION keep_consents();
CREATE TRIGGER all_notices_kept BEFORE TRUNCATE ON notices
    FOR EACH STATEMENT EXECUTE FUNCTION keep_consents();
