-- label: lead_audit, preloaded
-- preloaded
-- Failures are followed and the trail is sealed every second, as by default.
CREATE EXTENSION lead_audit;
