//! The command `keygen`, which makes a key pair.

use crate::Status;
use crate::arguments::Keygen;
use crate::error::CommandError;
use crate::files::write_secret;
use crate::progress::Console;
use ledger::cosignature::CosigningKey;
use ledger::note::SigningKey;
use serde_json::json;

pub fn run(arguments: &Keygen, console: Console) -> Result<Status, CommandError> {
    let bad_name = |cause| CommandError::Key { from: "--name".to_owned(), cause };
    let (text, public) = if arguments.witness {
        let key = CosigningKey::generate(&arguments.name).map_err(bad_name)?;
        (key.to_text(), key.verifier().to_string())
    } else {
        let key = SigningKey::generate(&arguments.name).map_err(bad_name)?;
        (key.to_text(), key.verifier().to_string())
    };
    write_secret(&arguments.output, &text)?;
    console.remark(&format!(
        "The private key is in {}, which only you can read. The public key, for whoever verifies:",
        arguments.output.display()
    ));
    let value =
        json!({ "public_key": public, "private_key_file": arguments.output.display().to_string() });
    console.result(&public, &value)?;
    Ok(Status::Intact)
}
