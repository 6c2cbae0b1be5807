-- Functions that seal entries on demand and compute proofs of the tree. The functions of this file
-- run with the rights of the extension's owner, so an auditor needs only USAGE on the schema and
-- EXECUTE on the functions.
CREATE FUNCTION lead_audit.seal() RETURNS bigint
  LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'seal_wrapper';
REVOKE ALL ON FUNCTION lead_audit.seal() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.seal() IS
  'Appends the entries of finished transactions to the tree, and the entries that the calling '
  'transaction has written so far. Writes one checkpoint, or several for many entries, and '
  'publishes them when the transaction commits. Returns the number of leaves in the tree. The '
  'background worker does the same every lead_audit.seal_interval. Until the calling transaction '
  'ends, other sealing waits. Writers never wait.';

CREATE FUNCTION lead_audit.inclusion_proof(id bigint, tree_size bigint DEFAULT NULL) RETURNS text
  LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'inclusion_proof_wrapper';
REVOKE ALL ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.inclusion_proof(bigint, bigint) IS
  'Returns the proof that an entry is in the tree, as a C2SP tlog-proof with the newest '
  'checkpoint or the one of tree_size. Errors: P0002 if there is no such entry or checkpoint, '
  '55000 if the entry is not sealed yet, 22023 if the tree of that size does not contain the '
  'entry.';

CREATE FUNCTION lead_audit.consistency_proof(from_size bigint, to_size bigint DEFAULT NULL)
  RETURNS text LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'consistency_proof_wrapper';
REVOKE ALL ON FUNCTION lead_audit.consistency_proof(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.consistency_proof(bigint, bigint) IS
  'Returns the proof that the tree of from_size leaves is the beginning of the tree of to_size '
  'leaves, by default the whole tree. The proof is the hashes of RFC 6962, section 2.1.2, in '
  'base64, one on each line. It is empty if the sizes are equal or from_size is 0. Error 22023 if '
  'the tree never had one of the sizes.';

CREATE FUNCTION lead_audit.latest_checkpoint() RETURNS text
  LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'latest_checkpoint_wrapper';
REVOKE ALL ON FUNCTION lead_audit.latest_checkpoint() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.latest_checkpoint() IS
  'Returns the newest checkpoint as it was published: a C2SP signed note, or the unsigned text. '
  'NULL before the first.';

CREATE FUNCTION lead_audit.origin() RETURNS text
  LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'origin_wrapper';
REVOKE ALL ON FUNCTION lead_audit.origin() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.origin() IS
  'Returns the name of this log in its next checkpoint: the name of the signing key, else '
  'lead_audit.origin, else lead_audit/ and the log id.';

CREATE FUNCTION lead_audit.verifier_key() RETURNS text
  LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS 'MODULE_PATHNAME', 'verifier_key_text_wrapper';
REVOKE ALL ON FUNCTION lead_audit.verifier_key() FROM PUBLIC;
COMMENT ON FUNCTION lead_audit.verifier_key() IS
  'Returns the public key that belongs to lead_audit.signing_key_file, in the form that verifiers '
  'take. NULL if checkpoints are not signed. An auditor must get the key from another source, '
  'because the database cannot be trusted with it.';
