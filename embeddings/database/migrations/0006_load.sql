-- What tables say of events and no event over HTTP does: the visit, such as the number of a receipt, and guests, who have
--   no id.
ALTER TABLE events ADD COLUMN visit text;
-- squawk-ignore ban-drop-not-null
ALTER TABLE events ALTER COLUMN customer_id DROP NOT NULL;
