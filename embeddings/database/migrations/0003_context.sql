-- What an event says of its situation, as the recipe's context attributes.
ALTER TABLE events ADD COLUMN context jsonb;
