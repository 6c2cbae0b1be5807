-- Sealing by hand, and what proves that an entry is in the tree. These run with the rights of the extension's owner, so EXECUTE
-- is all that an auditor needs.
CREATE FUNCTION lead_audit.seal() RETURNS bigint
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'seal_wrapper';
REVOKE ALL ON FUNCTION lead_audit.seal() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.seal() IS 'Takes the entries of finished transactions (and those that the calling one has written so far) into the tree, writes a checkpoint, or several of many entries, and publishes it when the transaction is committed. Returns the number of leaves in the tree. The background worker does the same every lead_audit.seal_interval. Other sealing waits until the calling transaction ends; writers never do.';

CREATE FUNCTION lead_audit.inclusion_proof(id bigint, tree_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'inclusion_proof_wrapper';
REVOKE ALL ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) IS 'Proof that an entry is in the tree, as a C2SP tlog-proof with the newest checkpoint, or that of tree_size. Errors: P0002 for an entry or checkpoint that there is not, 55000 for an entry that is not sealed yet, 22023 for a tree that the entry is not in.';

CREATE FUNCTION lead_audit.consistency_proof(from_size bigint, to_size bigint DEFAULT NULL) RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'consistency_proof_wrapper';
REVOKE ALL ON FUNCTION lead_audit.consistency_proof(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.consistency_proof(bigint, bigint) IS 'Proof that the tree of from_size leaves has only grown into that of to_size (by default the whole tree): the hashes of RFC 6962, section 2.1.2, in base64, each on a line. Empty for equal sizes and for 0. Error 22023 for sizes that the tree has not had.';

CREATE FUNCTION lead_audit.latest_checkpoint() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'latest_checkpoint_wrapper';
REVOKE ALL ON FUNCTION lead_audit.latest_checkpoint() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.latest_checkpoint() IS 'The newest checkpoint as it left the database: a C2SP signed note, or the unsigned text. NULL before the first.';

CREATE FUNCTION lead_audit.origin() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'origin_wrapper';
REVOKE ALL ON FUNCTION lead_audit.origin() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.origin() IS 'The name of this log in its next checkpoint: that of the signing key, or lead_audit.origin, or lead_audit/ and the log''s id.';

CREATE FUNCTION lead_audit.verifier_key() RETURNS text
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'verifier_key_text_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verifier_key() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verifier_key() IS 'The public key that belongs to lead_audit.signing_key_file, as the text that verifiers take. NULL if checkpoints are not signed. Who audits gets it from elsewhere: the database is not to be trusted with it.';
