-- label: lead_audit, preloaded
-- preloaded
-- Failures are recorded, and the trail is sealed every second. These are the defaults.
CREATE EXTENSION lead_audit;
