fn main() {
    broth_worker::run_if_asked();
}
