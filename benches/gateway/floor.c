/* The least that polling costs: libmodbus reads all points once a second and keeps the newest value of each. The points
 * are spread evenly over devices with unit ids from 1 on, as the gateway has them: a request goes to one device.
 *
 *   floor PORT POINTS DEVICES
 *
 * It stores nothing and sends nothing. It ends with SIGTERM, or with status 1 where a read fails. */
#define _GNU_SOURCE
#include <modbus/modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PER_REQUEST = 62, POINTS_MAX = 32768 };

static float newest[POINTS_MAX];

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int points = atoi(argv[2]), devices = atoi(argv[3]), each = points / devices;
    modbus_t *context = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    if (context == NULL || points > POINTS_MAX || modbus_connect(context)) return 1;
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (;;) {
        for (int device = 0; device < devices; device++) {
            if (modbus_set_slave(context, device + 1)) return 1;
            for (int first = 0; first < each; first += PER_REQUEST) {
                int count = each - first < PER_REQUEST ? each - first : PER_REQUEST;
                uint16_t words[2 * PER_REQUEST];
                if (modbus_read_input_registers(context, first * 2, count * 2, words) != count * 2) {
                    perror("a read");
                    return 1;
                }
                float *to = newest + device * each + first;
                for (int place = 0; place < count; place++) to[place] = modbus_get_float_abcd(words + 2 * place);
            }
        }
        due.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}
