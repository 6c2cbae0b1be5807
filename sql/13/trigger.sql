-- PostgreSQL 13 has no CREATE OR REPLACE TRIGGER.
CREATE OR REPLACE FUNCTION lead_audit.make_trigger(relation regclass, name text, events text, level text, function text, arguments text[], identity uuid)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname = name) THEN
    EXECUTE format('DROP TRIGGER %I ON %s', name, relation);
  END IF;
  EXECUTE format('CREATE TRIGGER %I %s ON %s FOR EACH %s EXECUTE FUNCTION lead_audit.%I(%s)', name, events, relation, level, function,
                 (SELECT string_agg(quote_literal(a), ', ' ORDER BY n) FROM unnest(arguments) WITH ORDINALITY u(a, n)));
  EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', relation,
                 CASE WHEN (SELECT w.replica FROM lead_audit.watch w WHERE w.watch_id = identity) THEN 'ALWAYS' END, name);
END
$$;
