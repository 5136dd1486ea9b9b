#include "tools/heddle-opt/heddle_opt.h"

int main(int argc, char** argv) { return heddle::heddleOptMain(argc, argv); }
