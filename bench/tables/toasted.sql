-- Creates a table `leads` with :n rows. Each row has a text of 16 kB, which PostgreSQL stores out
-- of line.
CREATE TABLE public.leads (id varchar NOT NULL PRIMARY KEY, status text, note text);
ALTER TABLE public.leads ALTER COLUMN note SET STORAGE EXTERNAL;
INSERT INTO public.leads SELECT lpad(to_hex(g), 32, '0'), 'PENDING',
  (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 512) i)
FROM generate_series(1, :n) g;
ANALYZE public.leads;
