"""The demo's own world: word problems, a simulated teacher that errs, and a small warm student."""
