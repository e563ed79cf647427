//! `lbctl`: one request to the daemon, printed as a table or as JSON.
