-- Placements: where recommendations are shown, and by which rules.
CREATE TABLE placements PARTITION OF catalogue FOR VALUES IN ('placement');
