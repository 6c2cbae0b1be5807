-- Creates the table `leads` as in the first application that uses lead_audit.
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
