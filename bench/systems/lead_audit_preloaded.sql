-- label: lead_audit, preloaded
-- preloaded
-- By default, a preloaded library records failures and seals the trail every second.
CREATE EXTENSION lead_audit;
