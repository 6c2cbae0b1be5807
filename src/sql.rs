//! Lists the files with the extension's SQL objects. Each file depends on the files before it.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/10_schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/20_watch.sql", name = "watch", requires = ["schema"]);
extension_sql_file!("../sql/30_entry.sql", name = "entry", requires = ["watch"]);
extension_sql_file!("../sql/35_tree.sql", name = "tree", requires = ["entry"]);
extension_sql_file!("../sql/40_log.sql", name = "log", requires = ["tree"]);
extension_sql_file!("../sql/50_capture.sql", name = "capture", requires = ["log"]);
extension_sql_file!("../sql/60_watching.sql", name = "watching", requires = ["capture"]);
extension_sql_file!("../sql/70_ddl_guard.sql", name = "ddl_guard", requires = ["watching"]);
extension_sql_file!("../sql/73_seal.sql", name = "seal", requires = ["ddl_guard"]);
extension_sql_file!("../sql/75_verify.sql", name = "verify", requires = ["seal"]);
extension_sql_file!("../sql/76_failure.sql", name = "failure", requires = ["verify"]);
extension_sql_file!("../sql/80_query.sql", name = "query", requires = ["failure"]);
extension_sql_file!("../sql/90_start.sql", name = "start", requires = ["query"], finalize);
