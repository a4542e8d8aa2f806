/* clients.h: who asks for runs, the people who decide, and who sends what does not belong there. */
#ifndef MYELIN_SIM_CLIENTS_H
#define MYELIN_SIM_CLIENTS_H

void clients_open(const char *contract_path); /* publishes it */
void clients_serve(void);

#endif
