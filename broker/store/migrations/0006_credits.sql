-- What users may spend: an account each, and its entries. Postgres holds the credits of a job when it is queued, and takes
-- or releases them in the write that makes it final, so that no way of ending a job can forget it. No payment data.

CREATE TABLE accounts (
    user_id text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    credits integer NOT NULL DEFAULT 0,
    held    integer NOT NULL DEFAULT 0 CHECK (held >= 0),
    CONSTRAINT credits_suffice CHECK (credits >= held)
);

CREATE TABLE credit_entries (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id   text NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
    kind      text NOT NULL CHECK (kind IN ('granted', 'held', 'captured', 'released')),
    credits   integer NOT NULL CHECK (credits > 0),
    job_id    uuid REFERENCES jobs (id) ON DELETE SET NULL,
    reference text,  -- the app's own id of a grant: the same again grants nothing
    at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, reference),
    CONSTRAINT granted_means_reference CHECK ((kind = 'granted') = (reference IS NOT NULL))
);
CREATE INDEX credit_entries_by_job ON credit_entries (job_id);

ALTER TABLE jobs ADD COLUMN price integer NOT NULL DEFAULT 0 CHECK (price >= 0);  -- in credits, from when it came in

CREATE FUNCTION hold_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET held = held + NEW.price WHERE user_id = NEW.user_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no account' USING ERRCODE = 'check_violation', CONSTRAINT = 'credits_suffice';
    END IF;
    INSERT INTO credit_entries (user_id, kind, credits, job_id) VALUES (NEW.user_id, 'held', NEW.price, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER job_priced AFTER UPDATE ON jobs
    FOR EACH ROW WHEN (NEW.price > 0 AND OLD.state = 'receiving' AND NEW.state <> 'receiving')
    EXECUTE FUNCTION hold_credits();

CREATE FUNCTION settle_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET held = held - NEW.price, credits = credits - CASE WHEN NEW.charged THEN NEW.price ELSE 0 END
    WHERE user_id = NEW.user_id;
    INSERT INTO credit_entries (user_id, kind, credits, job_id)
    VALUES (NEW.user_id, CASE WHEN NEW.charged THEN 'captured' ELSE 'released' END, NEW.price, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER job_paid AFTER UPDATE ON jobs
    FOR EACH ROW WHEN (NEW.price > 0 AND OLD.finalized_at IS NULL AND NEW.finalized_at IS NOT NULL)
    EXECUTE FUNCTION settle_credits();

CREATE FUNCTION grant_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET credits = credits + NEW.credits WHERE user_id = NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER credits_granted AFTER INSERT ON credit_entries
    FOR EACH ROW WHEN (NEW.kind = 'granted') EXECUTE FUNCTION grant_credits();

-- Entries are added and never changed, but for a job that is forgotten; they go with their user.
CREATE FUNCTION keep_credit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'job_id' IS DISTINCT FROM to_jsonb(OLD) - 'job_id' OR NEW.job_id IS NOT NULL THEN
        RAISE EXCEPTION 'an entry stays as it is' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credit_entries_kept BEFORE UPDATE ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION keep_credit_entries();
