/* Load for a server on loopback: echo, connect and sink, over TCP, with epoll; as little CPU of its own as possible.
 *
 * load MODE PORT CONNECTIONS SIZE WARMUP SECONDS
 *   echo     each connection sends SIZE bytes, waits for as many, and begins again; counts exchanges
 *   connect  connects, sends SIZE bytes, waits for as many, closes; counts connections
 *   sink     each connection sends without end; counts bytes taken
 *   idle     connects, says so, and holds the connections until its input ends
 *
 * Prints "measuring" after WARMUP seconds and "COUNT NANOSECONDS" SECONDS later, each at once, and ends by itself.
 */
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

enum { EVENTS = 1024, CHUNK = 1 << 20 };

struct connection {
    int fd;
    size_t sent, received;
};

static int poller;
static size_t size;
static struct sockaddr_in server;
static char *out, *in;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void begin(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server)) fail("connect");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->sent = c->received = 0;
    struct epoll_event event = {EPOLLIN, {.ptr = c}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
}

static void watch(struct connection *c, int writing) {
    struct epoll_event event = {writing ? EPOLLIN | EPOLLOUT : EPOLLIN, {.ptr = c}};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event)) fail("epoll_ctl");
}

/* Whether all of the message is under way. */
static int sendMore(struct connection *c) {
    while (c->sent < size) {
        ssize_t n = send(c->fd, out + c->sent, size - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) return 0;
            fail("send");
        }
        c->sent += n;
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: load echo|connect|sink|idle PORT CONNECTIONS SIZE WARMUP SECONDS\n");
        return 2;
    }
    const char *mode = argv[1];
    int reconnect = !strcmp(mode, "connect"), sink = !strcmp(mode, "sink");
    int count = atoi(argv[3]);
    size = strtoul(argv[4], NULL, 10);
    double warmup = atof(argv[5]), seconds = atof(argv[6]);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    out = malloc(size > CHUNK ? size : CHUNK);
    in = malloc(CHUNK);
    memset(out, 'x', size > CHUNK ? size : CHUNK);
    poller = epoll_create1(0);
    struct connection *all = calloc(count, sizeof *all);
    for (int i = 0; i < count; i++) begin(all + i);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(mode, "idle")) {
        puts("measuring");
        while (read(0, in, CHUNK) > 0) {}
        return 0;
    }
    if (sink) size = CHUNK;
    for (int i = 0; i < count; i++)
        if (!sendMore(all + i) || sink) watch(all + i, 1);

    long long start = now(), from = start + (long long)(warmup * 1e9), until = from + (long long)(seconds * 1e9);
    long long done = 0, bytes = 0, at = start;
    int measuring = 0;
    struct epoll_event events[EVENTS];
    while (!measuring || at < until) {
        int ready = epoll_wait(poller, events, EVENTS, 1000);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (sink) {
                ssize_t n = send(c->fd, out, CHUNK, MSG_NOSIGNAL);
                if (n > 0) bytes += n;
                else if (n < 0 && errno != EAGAIN) fail("send");
                continue;
            }
            if (events[i].events & EPOLLOUT && sendMore(c)) watch(c, 0);
            if (!(events[i].events & ~EPOLLOUT)) continue;
            ssize_t n = recv(c->fd, in, CHUNK, 0);
            if (n < 0 && errno == EAGAIN) continue;
            if (n <= 0) fail("recv");
            c->received += n;
            if (c->received < size) continue;
            done++;
            if (reconnect) {
                close(c->fd);
                begin(c);
            }
            c->sent = c->received = 0;
            if (!sendMore(c)) watch(c, 1);
        }
        at = now();
        if (!measuring && at >= from) {
            measuring = 1;
            puts("measuring");
            done = bytes = 0;
            from = at;
            until = at + (long long)(seconds * 1e9);
        }
    }
    printf("%lld %lld\n", sink ? bytes : done, at - from);
    return 0;
}
