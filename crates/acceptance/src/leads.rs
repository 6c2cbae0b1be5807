//! Creates databases with the watched table `leads`.

use crate::client::{Session, call};
use crate::cluster::Cluster;

const LEADS: &str = include_str!("../sql/leads.sql");

/// Creates a database with the extension and the watched table `leads`. Returns a session of the
/// superuser.
pub fn leads_database(cluster: &Cluster, name: &str) -> Session {
    call(&mut cluster.admin("postgres"), &format!("CREATE DATABASE {name}"));
    let mut admin = cluster.admin(name);
    call(&mut admin, LEADS);
    call(&mut admin, "CREATE EXTENSION lead_audit");
    admin
}

/// Creates a database in the same way as `leads_database`, and makes the role `app` the owner of
/// the table `leads`. The role `app` has no other rights.
pub fn app_database(cluster: &Cluster, name: &str) -> Session {
    let mut admin = leads_database(cluster, name);
    call(
        &mut admin,
        "DO $$ BEGIN
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') THEN
             CREATE ROLE app LOGIN;
           END IF;
         END $$;
         ALTER TABLE leads OWNER TO app",
    );
    admin
}

/// Inserts the leads with the numbers `from` to `to` in one statement.
pub fn add_leads(session: &mut Session, from: u32, to: u32) {
    call(
        session,
        &format!(
            "INSERT INTO leads (id, email, domain, company_name, contact_name,
                                enrichment_task_id, is_manual, source, created_by)
             SELECT lpad(to_hex(g), 32, '0'), 'contact' || g || '@example' || g || '.com',
                    'example' || g || '.com', 'Example Company ' || g || ' Holdings Ltd.',
                    'Contact Person ' || g, 'task-' || md5(g::text), g % 3 = 0,
                    CASE WHEN g % 2 = 0 THEN 'web' ELSE 'yelp' END, 'user-' || (g % 50)
             FROM generate_series({from}, {to}) g"
        ),
    );
}
