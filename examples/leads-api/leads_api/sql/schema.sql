-- Creates the table of the application. The table contains nothing for the audit trail. The
-- application's role `leads_app` runs this file.
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

-- At most one lead has an e-mail address. The index leaves out deleted leads, so another lead can
-- take the address of a deleted lead.
CREATE UNIQUE INDEX leads_email_key ON public.leads (lower(email)) WHERE NOT is_deleted;
CREATE INDEX leads_updated_at_idx ON public.leads (updated_at DESC, id);
