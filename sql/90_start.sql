-- CREATE EXTENSION calls this function to watch the table "leads", if the search_path of the role
-- that executes CREATE EXTENSION finds this table.
CREATE FUNCTION lead_audit_internal.watch_leads() RETURNS void
  LANGUAGE c AS 'MODULE_PATHNAME', 'watch_leads_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.watch_leads() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_leads() IS 'Last step of CREATE EXTENSION.';
SELECT lead_audit_internal.watch_leads();
