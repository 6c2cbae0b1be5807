-- Creates the table `leads` of the first application that used lead_audit. Inserts :n rows.
CREATE TABLE public.leads (
  id varchar NOT NULL PRIMARY KEY,
  email varchar(255), domain varchar(255), company_name varchar(500), contact_name varchar(255),
  enrichment_status varchar(20) NOT NULL DEFAULT 'PENDING',
  enrichment_task_id varchar(255), enrichment_error text,
  is_manual boolean NOT NULL DEFAULT false,
  source varchar(100),
  is_deleted boolean NOT NULL DEFAULT false,
  created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  deleted_at timestamp,
  created_by varchar(255), updated_by varchar(255), deleted_by varchar(255));
INSERT INTO public.leads (id, email, domain, company_name, contact_name, enrichment_task_id,
  is_manual, source, created_by)
SELECT lpad(to_hex(g), 32, '0'), 'contact' || g || '@example' || g || '.com',
  'example' || g || '.com', 'Example Company ' || g || ' Holdings Ltd.', 'Contact Person ' || g,
  'task-' || md5(g::text), g % 3 = 0, CASE WHEN g % 2 = 0 THEN 'web' ELSE 'yelp' END,
  'user-' || (g % 50)
FROM generate_series(1, :n) g;
ANALYZE public.leads;
