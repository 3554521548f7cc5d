#pragma once

/*
 * Where the other programs and the bundled model are: beside this program when installed, in their own
 * directories of the build tree otherwise. Answers live until exit.
 */

const char *cli_program_path(const char *name); /* "penstock-router" */
const char *cli_demo_model_path(void);
