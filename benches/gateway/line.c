/* A Modbus RTU line on a pseudo terminal, as slow as a real one, with devices that take their time.
 *
 *   line BAUD TURNAROUND_MS UNITS DEAD
 *
 * Units 1 to UNITS answer functions 3 and 4, but for the unit DEAD (0: all answer). The path of the terminal is
 * printed on stdout. A byte takes 11 bits; it is handed over when its last bit would have arrived, and what is due at
 * the same wake-up goes in one lump, as through any driver. A request of 8 bytes takes its time on the wire, then come
 * 3.5 characters of silence (1.75 ms above 19,200 baud), the turnaround, the answer. SIGTERM or end of stdin: the
 * counts are printed, a JSON object: answers by unit, requests, requests for the dead unit, how many of all came before the
 * line had been silent for 3.5 characters (less a tenth), seconds since the first request.
 *
 * SIGUSR1 sets the counts to zero. Limits: one client; requests come whole; no noise. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 8, ANSWER_MAX = 256, UNITS_MAX = 248 };

static volatile sig_atomic_t ended, zeroed;

static void on_end(int signal) { (void)signal; ended = 1; }
static void on_zero(int signal) { (void)signal; zeroed = 1; }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sleep_until(int64_t when_ns) {
    struct timespec when = {when_ns / 1000000000LL, when_ns % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR && !ended) {
    }
}

static uint16_t crc(const uint8_t *bytes, int count) {
    uint16_t sum = 0xFFFF;
    for (int place = 0; place < count; place++) {
        sum ^= bytes[place];
        for (int bit = 0; bit < 8; bit++) sum = sum & 1 ? sum >> 1 ^ 0xA001 : sum >> 1;
    }
    return sum;
}

static int answer_to(const uint8_t *request, uint8_t *answer) {
    int count = request[4] << 8 | request[5], length = 3;
    if (crc(request, REQUEST) != 0 || (request[1] != 3 && request[1] != 4) || count < 1 || count > 125) return 0;
    answer[0] = request[0];
    answer[1] = request[1];
    answer[2] = (uint8_t)(count * 2);
    for (int place = 0; place < count; place++) {
        int word = (request[2] << 8 | request[3]) + place;
        answer[length++] = (uint8_t)(word >> 8);
        answer[length++] = (uint8_t)word;
    }
    uint16_t sum = crc(answer, length);
    answer[length++] = (uint8_t)sum;
    answer[length++] = (uint8_t)(sum >> 8);
    return length;
}

/* Bytes as the wire hands them over; when the last one was. */
static int64_t deliver(int line, const uint8_t *bytes, int count, int64_t begin_ns, double char_ns) {
    int sent = 0;
    while (sent < count && !ended) {
        sleep_until(begin_ns + (int64_t)((sent + 1) * char_ns));
        int due = (int)((double)(now_ns() - begin_ns) / char_ns);
        due = due < sent + 1 ? sent + 1 : due > count ? count : due;
        if (write(line, bytes + sent, (size_t)(due - sent)) != due - sent) return now_ns();
        sent = due;
    }
    return now_ns();
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int baud = atoi(argv[1]), units = atoi(argv[3]), dead = atoi(argv[4]);
    int64_t turnaround_ns = (int64_t)(atof(argv[2]) * 1e6);
    double char_ns = 11e9 / baud;
    int64_t silence_ns = baud > 19200 ? 1750000 : (int64_t)(3.5 * char_ns);
    struct sigaction end = {.sa_handler = on_end}, zero = {.sa_handler = on_zero};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGUSR1, &zero, NULL);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    int line = posix_openpt(O_RDWR | O_NOCTTY);
    if (line < 0 || grantpt(line) || unlockpt(line)) return 1;
    int kept = open(ptsname(line), O_RDWR | O_NOCTTY);
    struct termios raw;
    tcgetattr(kept, &raw);
    cfmakeraw(&raw);
    tcsetattr(kept, TCSANOW, &raw);
    printf("%s\n", ptsname(line));
    fflush(stdout);
    long answers[UNITS_MAX] = {0}, requests = 0, in_vain = 0, hasty = 0;
    int64_t first_ns = 0, quiet_ns = 0;
    uint8_t request[REQUEST], answer[ANSWER_MAX];
    int got = 0;
    while (!ended) {
        struct pollfd waits = {.fd = line, .events = POLLIN};
        if (zeroed) {
            for (int unit = 0; unit < UNITS_MAX; unit++) answers[unit] = 0;
            requests = in_vain = hasty = zeroed = 0;
            first_ns = now_ns();
        }
        if (poll(&waits, 1, 100) <= 0) continue;
        int64_t came_ns = now_ns();
        ssize_t more = read(line, request + got, (size_t)(REQUEST - got));
        if (more <= 0) break;
        got += (int)more;
        if (got < REQUEST) continue;
        got = 0;
        requests++;
        first_ns = first_ns ? first_ns : came_ns;
        hasty += quiet_ns && came_ns - quiet_ns < silence_ns - silence_ns / 10;
        int64_t heard_ns = came_ns + (int64_t)(REQUEST * char_ns);
        int unit = request[0], length = answer_to(request, answer);
        quiet_ns = heard_ns;
        if (unit == dead) in_vain++;
        if (length == 0 || unit == 0 || unit > units || unit == dead) continue;
        quiet_ns = deliver(line, answer, length, heard_ns + silence_ns + turnaround_ns, char_ns);
        answers[unit]++;
    }
    printf("{\"requests\": %ld, \"in_vain\": %ld, \"hasty\": %ld, \"seconds\": %.3f, \"answers\": {", requests, in_vain, hasty,
           (double)(now_ns() - first_ns) / 1e9);
    for (int unit = 1; unit <= units; unit++) printf("%s\"%d\": %ld", unit > 1 ? ", " : "", unit, answers[unit]);
    printf("}}\n");
    return 0;
}
