-- label: lead_audit, preloaded
-- preloaded
-- With its default settings, a preloaded library records failed statements and seals entries every
-- second.
CREATE EXTENSION lead_audit;
