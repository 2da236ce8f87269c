-- Which log of changes this is: a `seq` means something within one log alone. Another database has another log, and so has
-- one that was restored, copied, or taken back to an earlier moment. `identify` in `embeddings/database/changelog.py`
-- renews it wherever the database finds itself in another place.
CREATE TABLE catalogue_log (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    place text NOT NULL,
    log uuid NOT NULL
);
INSERT INTO catalogue_log (place, log) VALUES ('none yet', gen_random_uuid());
