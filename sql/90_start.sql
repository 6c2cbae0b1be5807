-- Watch "leads" at once, if it is on the search_path of whoever creates the extension.
CREATE FUNCTION lead_audit_internal.watch_leads() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'watch_leads_wrapper';
REVOKE ALL ON FUNCTION lead_audit_internal.watch_leads() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit_internal.watch_leads() IS 'Internal to CREATE EXTENSION.';
SELECT lead_audit_internal.watch_leads();
