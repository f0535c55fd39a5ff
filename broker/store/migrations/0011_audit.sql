-- What was done to sensitive data, event by event: ids, codes and words of closed lists. Events are added and never changed;
-- sealed in batches, each a signed statement with the hash of the one before; deleted batch by batch at their time.

-- Joins a user to events. It goes with the user's row, and what stays leads to nobody.
ALTER TABLE users ADD COLUMN pseudonym uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE audit_events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT date_trunc('second', clock_timestamp()),
    event   text NOT NULL CHECK (event ~ '^[a-z_]{1,40}$'),
    pseudonym uuid,  -- null: nobody's, or of somebody who is gone
    job_id  uuid,  -- our id of a job, which no client ever sees
    detail  text NOT NULL DEFAULT ''
);
CREATE INDEX audit_by_pseudonym ON audit_events (pseudonym, id);

CREATE TABLE audit_batches (
    number            bigint PRIMARY KEY CHECK (number > 0),
    first_id          bigint NOT NULL,
    last_id           bigint NOT NULL UNIQUE CHECK (last_id >= first_id),
    keep_until        timestamptz NOT NULL,  -- from then on its events may be deleted, all of them
    note              text NOT NULL,         -- the signed statement: the hash of the batch before, the digest of its events
    events_deleted_at timestamptz,
    CONSTRAINT deleted_at_its_time CHECK (events_deleted_at IS NULL OR events_deleted_at >= keep_until)
);
CREATE INDEX audit_batches_kept ON audit_batches (keep_until) WHERE events_deleted_at IS NULL;

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'audit_events' THEN
        IF EXISTS (SELECT FROM (SELECT first_id, keep_until FROM audit_batches
                                WHERE last_id >= OLD.id ORDER BY last_id LIMIT 1) AS batch
                   WHERE first_id <= OLD.id AND keep_until <= now()) THEN
            RETURN OLD;
        END IF;
    ELSIF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'audit_batches' THEN
        IF OLD.events_deleted_at IS NULL AND NEW.events_deleted_at IS NOT NULL
           AND to_jsonb(NEW) - 'events_deleted_at' = to_jsonb(OLD) - 'events_deleted_at' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the record is only added to' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER audit_events_kept BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_batches_kept BEFORE UPDATE OR DELETE ON audit_batches
    FOR EACH ROW EXECUTE FUNCTION keep_audit();
-- TRUNCATE passes by the triggers of rows.
CREATE TRIGGER all_audit_events_kept BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
CREATE TRIGGER all_audit_batches_kept BEFORE TRUNCATE ON audit_batches
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();

-- Copies: one event for each job that a statement touches, in that statement, so that none can be forgotten. The user is
-- looked up by keys, whatever the planner thinks of a transition table.
CREATE FUNCTION audit_opened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym, job_id, detail)
    SELECT 'copies_opened',
           (SELECT users.pseudonym FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id = line.job_id),
           line.job_id, string_agg(line.words, ' ' ORDER BY line.words)
    FROM (SELECT job_id, what || CASE WHEN domain = 'ours' THEN '/' || holder ELSE '@' || provider END
                         || CASE WHEN count(*) > 1 THEN '*' || count(*) ELSE '' END AS words
          FROM added GROUP BY job_id, what, domain, holder, provider) AS line
    GROUP BY line.job_id;
    RETURN NULL;
END $$;
CREATE TRIGGER custody_opened_audited AFTER INSERT ON custody
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION audit_opened();

CREATE FUNCTION audit_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym, job_id, detail)
    SELECT 'copies_closed',
           (SELECT users.pseudonym FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id = line.job_id),
           line.job_id, string_agg(line.words, ' ' ORDER BY line.words)
    FROM (SELECT after.job_id,
                 after.what || CASE WHEN after.domain = 'ours' THEN '/' || after.holder ELSE '@' || after.provider END
                            || '=' || after.evidence || CASE WHEN count(*) > 1 THEN '*' || count(*) ELSE '' END AS words
          FROM after JOIN before USING (id)
          WHERE after.evidence IS DISTINCT FROM before.evidence
          GROUP BY after.job_id, after.what, after.domain, after.holder, after.provider, after.evidence) AS line
    GROUP BY line.job_id;
    RETURN NULL;
END $$;
CREATE TRIGGER custody_closed_audited AFTER UPDATE ON custody
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION audit_closed();

-- A copy that was expected at a provider and never made; rows that go with their job are told of with it.
CREATE FUNCTION audit_withdrawn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym, job_id, detail)
    SELECT 'copies_withdrawn', users.pseudonym, jobs.id, string_agg(DISTINCT gone.what || '@' || gone.provider, ' ')
    FROM gone JOIN jobs ON jobs.id = gone.job_id LEFT JOIN users ON users.id = jobs.user_id
    GROUP BY users.pseudonym, jobs.id;
    RETURN NULL;
END $$;
CREATE TRIGGER custody_withdrawn_audited AFTER DELETE ON custody
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION audit_withdrawn();

-- Records of jobs that are deleted, counted: at their time, by an erasure, or of an upload that was never whole.
CREATE FUNCTION audit_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym, detail)
    SELECT CASE WHEN gone.state = 'receiving' THEN 'upload_discarded' ELSE 'records_deleted' END, users.pseudonym, count(*)
    FROM gone LEFT JOIN users ON users.id = gone.user_id
    GROUP BY 1, 2;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_forgotten_audited AFTER DELETE ON jobs
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION audit_forgotten();

CREATE FUNCTION audit_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit_events (event, pseudonym)
        VALUES (CASE WHEN OLD.erasing_at IS NULL THEN 'user_deleted' ELSE 'user_erased' END, OLD.pseudonym);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit_events (event, pseudonym) VALUES ('user_made', NEW.pseudonym);
    ELSE
        INSERT INTO audit_events (event, pseudonym)
        VALUES (CASE WHEN NEW.restricted_at IS NULL THEN 'restriction_lifted' ELSE 'processing_restricted' END, NEW.pseudonym);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER user_audited AFTER INSERT OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit_user();
CREATE TRIGGER user_restriction_audited AFTER UPDATE OF restricted_at ON users
    FOR EACH ROW WHEN (OLD.restricted_at IS DISTINCT FROM NEW.restricted_at) EXECUTE FUNCTION audit_user();

-- A legal hold keeps the records of one user's jobs from the sweep and from an erasure; never an upload, an output or a key.
-- One operator proposes it, another confirms it in time, and only then it is in force.
CREATE TABLE holds (
    id           uuid PRIMARY KEY,
    user_id      text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    reference    text NOT NULL CHECK (reference ~ '^[A-Za-z0-9._:/-]{1,128}$'),  -- the operator's own, of a court's file
    proposed_by  text NOT NULL,
    proposed_at  timestamptz NOT NULL DEFAULT now(),
    confirm_by   timestamptz NOT NULL,
    confirmed_by text,
    confirmed_at timestamptz,
    ended_by     text,
    ended_at     timestamptz,
    CONSTRAINT two_operators CHECK (confirmed_by <> proposed_by),
    CONSTRAINT confirmed_in_time CHECK (confirmed_at <= confirm_by),
    CONSTRAINT confirmed_by_somebody CHECK ((confirmed_at IS NULL) = (confirmed_by IS NULL)),
    CONSTRAINT ended_by_somebody CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE INDEX holds_by_user ON holds (user_id);

CREATE FUNCTION is_held(who text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM holds WHERE user_id = who AND confirmed_at IS NOT NULL AND ended_at IS NULL)
$$;

-- What was proposed stays as it was; it is confirmed once, and ended once.
CREATE FUNCTION keep_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.confirmed_at IS NULL AND NEW.ended_at IS NULL THEN
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' AND OLD.ended_at IS NULL
          AND (OLD.confirmed_at IS NULL OR (NEW.confirmed_at, NEW.confirmed_by) = (OLD.confirmed_at, OLD.confirmed_by))
          AND (NEW.id, NEW.user_id, NEW.reference, NEW.proposed_by, NEW.proposed_at, NEW.confirm_by)
            = (OLD.id, OLD.user_id, OLD.reference, OLD.proposed_by, OLD.proposed_at, OLD.confirm_by) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a hold is proposed, confirmed and ended, once each' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER hold_kept BEFORE INSERT OR UPDATE ON holds FOR EACH ROW EXECUTE FUNCTION keep_hold();

CREATE FUNCTION keep_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF is_held(CASE TG_TABLE_NAME WHEN 'users' THEN to_jsonb(OLD) ->> 'id' ELSE to_jsonb(OLD) ->> 'user_id' END) THEN
        RAISE EXCEPTION 'a hold keeps this record' USING ERRCODE = 'check_violation', CONSTRAINT = 'held';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_held BEFORE DELETE ON jobs
    FOR EACH ROW WHEN (OLD.finalized_at IS NOT NULL) EXECUTE FUNCTION keep_held();
CREATE TRIGGER job_held_by_its_user BEFORE UPDATE OF user_id ON jobs
    FOR EACH ROW WHEN (NEW.user_id IS DISTINCT FROM OLD.user_id) EXECUTE FUNCTION keep_held();
CREATE TRIGGER user_held BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION keep_held();

-- Why somebody is erased: because the user asked, or because an operator learned that the user is a child.
ALTER TABLE requests ADD COLUMN ground text NOT NULL DEFAULT 'asked' CHECK (ground IN ('asked', 'child'));
ALTER TABLE requests ADD COLUMN operator text NOT NULL DEFAULT '';
ALTER TABLE requests ADD CONSTRAINT who_says_child CHECK ((ground = 'child') = (operator <> ''));

-- Whatever else is about one user: which word, and what it says, by the table.
CREATE FUNCTION audit_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said  text;
    about record;
BEGIN
    IF TG_OP = 'DELETE' THEN about := OLD; ELSE about := NEW; END IF;
    said := CASE TG_TABLE_NAME
                WHEN 'consents' THEN to_jsonb(about) ->> 'purpose'
                WHEN 'devices' THEN to_jsonb(about) ->> 'kem'
                WHEN 'credit_entries' THEN to_jsonb(about) ->> 'credits'
                WHEN 'requests' THEN concat_ws(' ', to_jsonb(about) ->> 'kind', nullif(to_jsonb(about) ->> 'ground', 'asked'),
                                               'by ' || nullif(to_jsonb(about) ->> 'operator', ''))
                WHEN 'holds' THEN concat_ws(' ', to_jsonb(about) ->> 'reference', 'by',
                                            coalesce(to_jsonb(about) ->> 'ended_by', to_jsonb(about) ->> 'confirmed_by',
                                                     to_jsonb(about) ->> 'proposed_by'))
            END;
    -- A device or a link that goes with its user is told of with the user.
    INSERT INTO audit_events (event, pseudonym, detail)
    SELECT TG_ARGV[0], pseudonym, coalesce(said, '')
    FROM (SELECT 1) AS one LEFT JOIN users ON users.id = about.user_id
    WHERE TG_OP <> 'DELETE' OR users.id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER consent_given_audited AFTER INSERT ON consents
    FOR EACH ROW WHEN (NEW.event = 'given') EXECUTE FUNCTION audit_of_user('consent_given');
CREATE TRIGGER consent_withdrawn_audited AFTER INSERT ON consents
    FOR EACH ROW WHEN (NEW.event = 'withdrawn') EXECUTE FUNCTION audit_of_user('consent_withdrawn');
CREATE TRIGGER device_added_audited AFTER INSERT ON devices
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('device_added');
CREATE TRIGGER device_removed_audited AFTER DELETE ON devices
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('device_removed');
CREATE TRIGGER sign_in_linked_audited AFTER INSERT ON links
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('sign_in_linked');
CREATE TRIGGER sign_in_unlinked_audited AFTER DELETE ON links
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('sign_in_unlinked');
CREATE TRIGGER credits_granted_audited AFTER INSERT ON credit_entries
    FOR EACH ROW WHEN (NEW.kind = 'granted') EXECUTE FUNCTION audit_of_user('credits_granted');
-- An export is a request for access or portability: there is no other way to one.
CREATE TRIGGER request_made_audited AFTER INSERT ON requests
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('request_made');
CREATE TRIGGER request_completed_audited AFTER UPDATE OF status ON requests
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION audit_of_user('request_completed');
CREATE TRIGGER hold_proposed_audited AFTER INSERT ON holds
    FOR EACH ROW EXECUTE FUNCTION audit_of_user('hold_proposed');
CREATE TRIGGER hold_placed_audited AFTER UPDATE OF confirmed_at ON holds
    FOR EACH ROW WHEN (OLD.confirmed_at IS NULL AND NEW.confirmed_at IS NOT NULL)
    EXECUTE FUNCTION audit_of_user('hold_placed');
CREATE TRIGGER hold_ended_audited AFTER UPDATE OF ended_at ON holds
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION audit_of_user('hold_ended');

-- What opens outputs, wrapped to devices.
CREATE FUNCTION audit_wrapped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym, job_id, detail)
    SELECT 'outputs_wrapped', users.pseudonym, jobs.id, count(*)
    FROM wrapped JOIN jobs ON jobs.id = wrapped.job_id LEFT JOIN users ON users.id = jobs.user_id
    GROUP BY users.pseudonym, jobs.id;
    RETURN NULL;
END $$;
CREATE TRIGGER outputs_wrapped_audited AFTER INSERT ON output_keys
    REFERENCING NEW TABLE AS wrapped FOR EACH STATEMENT EXECUTE FUNCTION audit_wrapped();

-- A notice has the times for which everything is kept among its facts: whoever changes retention announces one.
CREATE FUNCTION audit_notice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, detail) VALUES ('notice_announced', NEW.version);
    RETURN NULL;
END $$;
CREATE TRIGGER notice_audited AFTER INSERT ON notices FOR EACH ROW EXECUTE FUNCTION audit_notice();

-- A breach as an operator declares it (GDPR Art. 33), and everybody whom it concerns: told when the app has shown it.
CREATE TABLE breaches (
    id          uuid PRIMARY KEY,
    operator    text NOT NULL,
    declared_at timestamptz NOT NULL DEFAULT now(),
    aware_at    timestamptz NOT NULL CHECK (aware_at <= declared_at),
    since       timestamptz,  -- whose data was touched between the two; null: everybody's
    until       timestamptz,
    facts       jsonb NOT NULL,
    concerned   integer NOT NULL,  -- how many users: it outlives them, since an authority asks later
    CONSTRAINT a_time_has_two_ends CHECK ((since IS NULL) = (until IS NULL) AND since < until)
);
CREATE TABLE breach_users (
    user_id   text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    breach_id uuid NOT NULL REFERENCES breaches (id),
    told_at   timestamptz,
    PRIMARY KEY (user_id, breach_id)
);
CREATE INDEX breach_users_by_breach ON breach_users (breach_id);
CREATE TRIGGER breaches_kept BEFORE UPDATE OR DELETE ON breaches FOR EACH ROW EXECUTE FUNCTION keep_audit();

CREATE FUNCTION audit_breach() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, detail) VALUES ('breach_declared', 'by ' || NEW.operator);
    RETURN NULL;
END $$;
CREATE TRIGGER breach_audited AFTER INSERT ON breaches FOR EACH ROW EXECUTE FUNCTION audit_breach();

CREATE FUNCTION audit_concerned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_events (event, pseudonym)
    SELECT TG_ARGV[0], users.pseudonym FROM concerned JOIN users ON users.id = concerned.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER breach_noted_audited AFTER INSERT ON breach_users
    REFERENCING NEW TABLE AS concerned FOR EACH STATEMENT EXECUTE FUNCTION audit_concerned('breach_noted');
CREATE TRIGGER breach_told_audited AFTER UPDATE ON breach_users
    REFERENCING NEW TABLE AS concerned FOR EACH STATEMENT EXECUTE FUNCTION audit_concerned('breach_told');
