-- name: standing
-- The notice in force, what a user agrees to under it (or under another version with the same facts), and the age that
-- the user stated. A withdrawal counts whatever the version.
WITH in_force AS (SELECT version, digest FROM notices WHERE version = notice_in_force()),
     last AS (
    SELECT DISTINCT ON (consents.purpose) consents.purpose, consents.event
    FROM consents JOIN notices ON notices.version = consents.notice
    WHERE consents.user_id = $1
      AND (consents.event = 'withdrawn' OR notices.digest = (SELECT digest FROM in_force))
    ORDER BY consents.purpose, consents.number DESC
)
SELECT coalesce((SELECT version FROM in_force), '') AS notice,
       coalesce((SELECT array_agg(purpose) FROM last WHERE event = 'given'), '{}') AS purposes,
       coalesce((SELECT max(stated_age) FROM consents WHERE user_id = $1), 0) AS stated_age

-- name: lately
-- How many rows a user has added within a day.
SELECT count(*) AS added FROM consents WHERE user_id = $1 AND at > now() - interval '1 day'

-- name: record
-- What a user gives ($3) and withdraws ($4) under a notice ($2): a row for each that changes something. What is given is
-- given for that notice; what is withdrawn is withdrawn for all.
WITH for_notice AS (
    SELECT DISTINCT ON (purpose) purpose, event, stated_age FROM consents
    WHERE user_id = $1 AND (event = 'withdrawn' OR notice = $2)
    ORDER BY purpose, number DESC
), for_all AS (
    SELECT DISTINCT ON (purpose) purpose, event FROM consents WHERE user_id = $1 ORDER BY purpose, number DESC
), wished AS (
    SELECT purpose, 'given' AS event FROM unnest($3::text[]) AS given (purpose)
    WHERE NOT EXISTS (SELECT FROM for_notice WHERE for_notice.purpose = given.purpose AND for_notice.event = 'given'
                                               AND coalesce(for_notice.stated_age, 0) >= coalesce($5::int, 0))
    UNION ALL
    SELECT purpose, 'withdrawn' FROM unnest($4::text[]) AS gone (purpose)
    WHERE EXISTS (SELECT FROM for_all WHERE for_all.purpose = gone.purpose AND for_all.event = 'given')
)
INSERT INTO consents (user_id, notice, purpose, event, stated_age, method)
SELECT $1, $2, wished.purpose, wished.event, CASE WHEN wished.event = 'given' THEN $5::int END, $6 FROM wished

-- name: of_user
-- All that a user gave and withdrew, oldest first.
SELECT id, user_id, notice, purpose, event, stated_age, method, at
FROM (SELECT * FROM consents WHERE user_id = $1 ORDER BY number DESC LIMIT $2) AS newest
ORDER BY number
