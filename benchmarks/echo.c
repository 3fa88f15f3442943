/* An echo server on loopback with epoll and nothing else: what the work costs at the least.
 *
 * echo WORK: "echo", or "sink", which throws away what comes. Prints its port, answers input with a line of JSON (the
 * nanoseconds of CPU that it has taken), and ends when its input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, SIZE = 1 << 18 };

struct connection {
    int fd;
    char *waiting;
    size_t first, last;
};

static struct connection *of[1 << 20];

int main(int argc, char **argv) {
    int sink = argc > 1 && !strcmp(argv[1], "sink"), one = 1;
    static char buffer[SIZE];
    struct epoll_event events[EVENTS], event;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < (1 << 20) ? files.rlim_max : (1 << 20);
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poller = epoll_create1(0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof here;
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, length) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&here, &length);
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    event = (struct epoll_event){EPOLLIN, {.fd = listener}};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event = (struct epoll_event){EPOLLIN, {.fd = 0}};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                struct timespec cpu;
                if (read(0, buffer, SIZE) <= 0) return 0;
                clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
                printf("{\"cpu\": %lld}\n", cpu.tv_sec * 1000000000LL + cpu.tv_nsec);
                fflush(stdout);
                continue;
            }
            if (fd == listener) {
                int new;
                while ((new = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    of[new] = calloc(1, sizeof *of[new]);
                    event = (struct epoll_event){EPOLLIN, {.fd = new}};
                    epoll_ctl(poller, EPOLL_CTL_ADD, new, &event);
                }
                continue;
            }
            struct connection *c = of[fd];
            ssize_t n;
            if (events[i].events & EPOLLOUT) {
                n = send(fd, c->waiting + c->first, c->last - c->first, 0);
                if (n > 0) c->first += n;
                if (c->first < c->last) continue;
                event = (struct epoll_event){EPOLLIN, {.fd = fd}};
                epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
            }
            n = recv(fd, buffer, SIZE, 0);
            if (n < 0 && errno == EAGAIN) continue;
            if (n <= 0) {
                free(c->waiting);
                free(c);
                close(fd);
                continue;
            }
            if (sink) continue;
            ssize_t sent = send(fd, buffer, n, 0);
            if (sent < 0) sent = 0;
            if (sent < n) {
                if (!c->waiting) c->waiting = malloc(SIZE);
                memcpy(c->waiting, buffer + sent, n - sent);
                c->first = 0;
                c->last = n - sent;
                event = (struct epoll_event){EPOLLOUT, {.fd = fd}};
                epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
            }
        }
    }
}
