// The command line.
#include "cli/cli.h"

int main(int argc, char** argv) { return wrenn::cli::run(argc, argv); }
