/* empty.c -- starts and ends. */
int main(void) { return 0; }
