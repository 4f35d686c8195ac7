-- The keys of customers' texts stand in a database of their own, so that an erasure reaches into the
-- backups of the texts. Run once, when the volume is new.
CREATE DATABASE auspex_keys OWNER auspex;
