-- label: empty C trigger
-- An empty trigger is the first part of the floor (bench/README.md). :'library' is the path of the
-- library that bench/compare.sh has built from bench/empty_trigger.c.
CREATE FUNCTION empty_trigger() RETURNS trigger LANGUAGE c AS :'library', 'empty_trigger';
CREATE TRIGGER empty AFTER INSERT OR UPDATE OR DELETE ON leads
  FOR EACH ROW EXECUTE FUNCTION empty_trigger();
