-- Which purchases were redeemed, by whomever: a digest of the shop's own id, and a day. It names no user, and outlives one.

CREATE TABLE purchases (
    digest      bytea PRIMARY KEY CHECK (length(digest) = 32),
    redeemed_on date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date
);
CREATE INDEX purchases_by_day ON purchases (redeemed_on);
