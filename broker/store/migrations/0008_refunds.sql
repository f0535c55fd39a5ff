-- Who cannot have what was paid for gets it back: an output that cannot be opened any more is not charged.

ALTER TABLE credit_entries
    DROP CONSTRAINT credit_entries_kind_check,
    ADD CONSTRAINT credit_entries_kind_check
        CHECK (kind IN ('granted', 'held', 'captured', 'released', 'refunded'));

CREATE FUNCTION refund_credits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET credits = credits + NEW.price WHERE user_id = NEW.user_id;
    INSERT INTO credit_entries (user_id, kind, credits, job_id) VALUES (NEW.user_id, 'refunded', NEW.price, NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER job_refunded AFTER UPDATE ON jobs
    FOR EACH ROW WHEN (NEW.price > 0 AND OLD.charged AND NOT NEW.charged)
    EXECUTE FUNCTION refund_credits();
