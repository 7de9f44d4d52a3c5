/* A Modbus TCP server made with libmodbus, whose input registers change with every answer.
 *
 *   server
 *
 * Unit any, 65,536 input registers that hold `f32` in `abcd` order. The port is printed on stdout. One client at a time; it
 * ends with SIGTERM. */
#include <arpa/inet.h>
#include <modbus/modbus.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REGISTERS = 65536 };

int main(void) {
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *mapping = modbus_mapping_new(0, 0, 0, REGISTERS);
    if (context == NULL || mapping == NULL) return 1;
    /* modbus_tcp_listen() does not say which port it got. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof place;
    if (bind(listener, (struct sockaddr *)&place, length) || listen(listener, 4)) return 1;
    getsockname(listener, (struct sockaddr *)&place, &length);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    float number = 0;
    while (modbus_tcp_accept(context, &listener) >= 0) {
        uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
        int got;
        while ((got = modbus_receive(context, request)) >= 0) {
            if (got == 0) continue;
            int first = request[8] << 8 | request[9], count = request[10] << 8 | request[11];
            for (int at = first; at + 1 < first + count && at + 1 < REGISTERS; at += 2) {
                number = number > 99 ? 0 : number + 0.25F;
                modbus_set_float_abcd(number + (float)at, mapping->tab_input_registers + at);
            }
            if (modbus_reply(context, request, got, mapping) < 0) break;
        }
        modbus_close(context);
    }
    return 0;
}
