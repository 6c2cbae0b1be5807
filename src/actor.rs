//! Reads the actor of an event: the context that the application sets, and the roles, address,
//! application name and process that the database knows. The application can set the context and
//! application_name to any value, but cannot forge the roles, the address and the process. A
//! session keeps the computed actor until one of the actor's values changes. A bulk statement
//! therefore computes the actor only once.

use crate::pg::{Text, role_name};
use crate::settings;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

/// The columns of an entry that identify the user behind the event.
#[derive(Debug, Default)]
pub struct Actor {
    pub user_id: Option<Text>,
    pub user_ip: Option<Text>,
    pub user_agent: Option<Text>,
    pub request_id: Option<Text>,
    pub db_session_user: Option<Text>,
    pub db_current_user: Option<Text>,
    pub client_addr: Option<Text>,
    pub application_name: Option<Text>,
    pub backend_pid: i32,
}

impl Actor {
    /// Returns the names of the columns whose text is percent-encoded, because its bytes are not
    /// UTF-8 or contain NUL.
    pub fn encoded(&self) -> impl Iterator<Item = &'static str> {
        let columns = [
            ("user_id", &self.user_id),
            ("user_ip", &self.user_ip),
            ("user_agent", &self.user_agent),
            ("request_id", &self.request_id),
            ("db_session_user", &self.db_session_user),
            ("db_current_user", &self.db_current_user),
            ("client_addr", &self.client_addr),
            ("application_name", &self.application_name),
        ];
        columns
            .into_iter()
            .filter(|(_, text)| text.as_ref().is_some_and(Text::is_encoded))
            .map(|(name, _)| name)
    }
}

struct Cached {
    actor: Rc<Actor>,
    context_generation: u64,
    role_generation: u64,
    session_user: pg_sys::Oid,
    current_user: pg_sys::Oid,
    application_name: Vec<u8>,
}

thread_local! {
    static CACHED: RefCell<Option<Cached>> = const { RefCell::new(None) };
    static ROLE_GENERATION: Cell<u64> = const { Cell::new(0) };
    static CLIENT_ADDR: RefCell<Option<String>> = const { RefCell::new(None) };
    static ACTING_FOR: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// Makes the next call of [`current`] look up role names again. The hooks call this function when a
/// role has changed. An entry must not contain the old name of a renamed role.
pub fn role_changed() {
    ROLE_GENERATION.set(ROLE_GENERATION.get() + 1);
}

/// Runs `work`, and records the events that `work` causes with `role` as their current user. The
/// library calls this function when it acts on behalf of `role` with more rights than `role` has.
pub fn acting_for<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<pg_sys::Oid>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTING_FOR.set(self.0);
        }
    }
    let _restore = Restore(ACTING_FOR.replace(Some(role)));
    work()
}

/// Runs `work` as [`acting_for`] does. If an enclosing call of [`acting_for`] has already set a
/// role, events are recorded with that role, and `role` is ignored.
pub fn acting_for_unless_known<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    acting_for(ACTING_FOR.get().unwrap_or(role), work)
}

/// Returns the role on whose behalf the library acts: the role that [`acting_for`] has set, or else
/// the outer user (`GetOuterUserId()`).
pub fn acting_role() -> pg_sys::Oid {
    // SAFETY: the call only reads a variable of the session. In enable() and disable(), which are
    // SECURITY DEFINER functions, the outer user is the role that called the function.
    ACTING_FOR.get().unwrap_or_else(|| unsafe { pg_sys::GetOuterUserId() })
}

/// Returns the actor of an event that happens now.
pub fn current() -> Rc<Actor> {
    // SAFETY: these calls only read variables of the session.
    let (session_user, current_user) = unsafe {
        (pg_sys::GetSessionUserId(), ACTING_FOR.get().unwrap_or_else(|| pg_sys::GetUserId()))
    };
    let application_name = application_name();
    let hit = CACHED.with_borrow(|cached| match cached {
        Some(c)
            if c.context_generation == settings::context_generation()
                && c.role_generation == ROLE_GENERATION.get()
                && c.session_user == session_user
                && c.current_user == current_user
                && c.application_name == application_name =>
        {
            Some(Rc::clone(&c.actor))
        }
        _ => None,
    });
    if let Some(actor) = hit {
        return actor;
    }
    // The counters `context_generation` and `role_generation` are read before the role names. If a
    // role changes while this function runs, the next call of `current` finds that a counter has
    // changed, and reads the role names once more.
    let (context_generation, role_generation) =
        (settings::context_generation(), ROLE_GENERATION.get());
    let actor = Rc::new(read(session_user, current_user, application_name));
    let cached = Cached {
        actor: Rc::clone(&actor),
        context_generation,
        role_generation,
        session_user,
        current_user,
        application_name: application_name.to_vec(),
    };
    CACHED.set(Some(cached));
    actor
}

fn read(session_user: pg_sys::Oid, current_user: pg_sys::Oid, application_name: &[u8]) -> Actor {
    let text = |value: Option<String>| value.as_deref().map(Text::from);
    Actor {
        user_id: text(settings::USER_ID.get()),
        user_ip: text(settings::USER_IP.get()),
        user_agent: text(settings::USER_AGENT.get()),
        request_id: text(settings::REQUEST_ID.get()),
        db_session_user: role_name(session_user),
        db_current_user: role_name(current_user),
        client_addr: text(client_addr()),
        application_name: (!application_name.is_empty())
            .then(|| Text::from_server(application_name)),
        // SAFETY: PostgreSQL sets `MyProcPid` when the process starts.
        backend_pid: unsafe { pg_sys::MyProcPid },
    }
}

/// The part of the actor that can be read while an error is raised. Contains the oids of roles and
/// not their names, because no catalog can be read while an error is raised.
pub struct Now {
    pub session_user: pg_sys::Oid,
    pub current_user: pg_sys::Oid,
    pub user_id: Option<String>,
    pub user_ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub client_addr: Option<String>,
    pub application_name: Option<String>,
}

impl Now {
    /// Reads the values that the session has now.
    pub fn read() -> Self {
        let application_name = application_name();
        // SAFETY: these calls only read variables of the session.
        let (session_user, current_user) = unsafe {
            (pg_sys::GetSessionUserId(), ACTING_FOR.get().unwrap_or_else(|| pg_sys::GetUserId()))
        };
        Now {
            session_user,
            current_user,
            user_id: settings::USER_ID.get(),
            user_ip: settings::USER_IP.get(),
            user_agent: settings::USER_AGENT.get(),
            request_id: settings::REQUEST_ID.get(),
            client_addr: CLIENT_ADDR.with_borrow(Clone::clone),
            application_name: (!application_name.is_empty())
                .then(|| String::from_utf8_lossy(application_name).into_owned()),
        }
    }
}

/// Stores the client's address for [`Now`], because reading the address while an error is raised
/// could raise a second error. The client's address does not change during the session.
pub fn remember_client_addr() {
    CLIENT_ADDR.set(client_addr());
}

fn application_name() -> &'static [u8] {
    // SAFETY: `application_name` is null only before its first assignment. The text of
    // `application_name` lives until the next assignment. Both callers of this function compare or
    // copy the text before the next assignment.
    unsafe {
        let name = pg_sys::application_name;
        if name.is_null() { b"" } else { CStr::from_ptr(name).to_bytes() }
    }
}

/// Returns the client's network address: the result of inet_client_addr() without the network mask.
/// Returns `None` if the client uses a Unix socket, or if the process has no client.
fn client_addr() -> Option<String> {
    // SAFETY: inet_client_addr has no arguments and returns NULL if there is no address.
    // network_host takes the inet that inet_client_addr returns.
    unsafe {
        let address = pgrx::direct_function_call_as_datum(pg_sys::inet_client_addr, &[])?;
        pgrx::direct_function_call(pg_sys::network_host, &[Some(address)])
    }
}
