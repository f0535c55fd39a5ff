-- Outputs that end when they are delivered or deleted, one by one; and outputs that only a device can open.

ALTER TABLE outputs ADD COLUMN destroy_at timestamptz;  -- where an output has a time of its own: from then on it is not served
CREATE INDEX outputs_due ON outputs (destroy_at) WHERE destroyed_at IS NULL AND destroy_at IS NOT NULL;
CREATE INDEX jobs_gallery ON jobs (user_id, finalized_at DESC, public_id DESC) WHERE state = 'succeeded';

-- Public keys that devices made, under random ids; of the devices themselves nothing is known.
CREATE TABLE devices (
    id         uuid PRIMARY KEY,
    user_id    text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kem        text NOT NULL CHECK (kem IN ('x25519', 'p256', 'xwing')),
    public_key bytea NOT NULL,
    created_on date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date,
    UNIQUE (user_id, public_key),
    CONSTRAINT key_fits_kem
        CHECK (octet_length(public_key) = CASE kem WHEN 'x25519' THEN 32 WHEN 'p256' THEN 65 ELSE 1216 END)
);

-- Whether outputs are sealed is decided when a job is taken in, and holds whatever a worker's profile says later.
ALTER TABLE jobs ADD COLUMN is_sealed boolean NOT NULL DEFAULT false;
ALTER TABLE jobs ADD CONSTRAINT what_we_can_open_lives_a_day
    CHECK (is_sealed OR state <> 'succeeded' OR coalesce(outputs_until <= finalized_at + interval '24 hours', false));

ALTER TABLE outputs ADD COLUMN is_sealed boolean NOT NULL DEFAULT false;
ALTER TABLE outputs ADD COLUMN thumbnail text NOT NULL DEFAULT '';  -- its blob; '' where there is none
ALTER TABLE outputs ADD COLUMN thumbnail_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE outputs ADD CONSTRAINT sealed_means_no_key_of_ours CHECK (is_sealed = (key_id = ''));

CREATE FUNCTION keep_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM jobs WHERE id = NEW.job_id AND is_sealed) THEN
        RAISE EXCEPTION 'an output of a sealed job is sealed' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER output_sealed BEFORE INSERT OR UPDATE OF is_sealed ON outputs
    FOR EACH ROW WHEN (NOT NEW.is_sealed) EXECUTE FUNCTION keep_sealed();

-- What opens an output, wrapped to one device each: of no use without that device's private key.
CREATE TABLE output_keys (
    job_id    uuid NOT NULL,
    n         integer NOT NULL,
    device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    wrapped   bytea NOT NULL,
    PRIMARY KEY (job_id, n, device_id),
    FOREIGN KEY (job_id, n) REFERENCES outputs (job_id, n) ON DELETE CASCADE
);
CREATE INDEX output_keys_by_device ON output_keys (device_id);
