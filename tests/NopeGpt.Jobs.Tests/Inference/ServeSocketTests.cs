using System.Net.Sockets;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Inference.Http;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Inference;

public sealed class ServeSocketTests(TinyStore tiny) : IClassFixture<TinyStore>
{
    private Task<InferenceServer> StartAsync(string socket, TimeSpan idle = default) =>
        InferenceServer.StartAsync(tiny.Store, InferenceDevice.Cpu, ServerFixture.Options(socket) with { Idle = idle });

    [Fact]
    public async Task The_socket_belongs_to_its_owner_alone_and_a_second_server_is_refused()
    {
        string socket = tiny["a.sock"];
        await using InferenceServer server = await StartAsync(socket);
        if (!OperatingSystem.IsWindows()) Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(socket));
        UserException e = await Assert.ThrowsAsync<UserException>(() => StartAsync(socket));
        Assert.Contains("another nopegpt serve", e.Message, StringComparison.Ordinal);
        using HttpClient http = ServerFixture.Client(socket);
        Assert.True((await http.GetAsync(new Uri("/health", UriKind.Relative))).IsSuccessStatusCode);
    }

    [Fact]
    public async Task What_a_killed_server_left_behind_is_replaced()
    {
        string socket = tiny["b.sock"];
        using (Socket left = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            left.Bind(new UnixDomainSocketEndPoint(socket));
            // A file of the name of the socket stays when the process dies without closing it: keep a second name for it.
            File.Move(socket, socket + ".kept");
        }
        File.Move(socket + ".kept", socket);
        await using InferenceServer server = await StartAsync(socket);
        using HttpClient http = ServerFixture.Client(socket);
        Assert.True((await http.GetAsync(new Uri("/health", UriKind.Relative))).IsSuccessStatusCode);
    }

    [Fact]
    public async Task A_file_that_is_no_socket_is_never_deleted()
    {
        string path = tiny["precious.txt"];
        await File.WriteAllTextAsync(path, "precious");
        UserException e = await Assert.ThrowsAsync<UserException>(() => StartAsync(path));
        Assert.Contains("is a file and no socket", e.Message, StringComparison.Ordinal);
        Assert.Equal("precious", await File.ReadAllTextAsync(path));
    }

    [Fact]
    public async Task A_server_that_nobody_uses_ends()
    {
        await using InferenceServer server = await StartAsync(tiny["c.sock"], TimeSpan.FromMilliseconds(100));
        await server.RunAsync(CancellationToken.None).WaitAsync(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public async Task A_web_site_cannot_use_a_server_on_the_loopback_address()
    {
        await using InferenceServer server = await InferenceServer.StartAsync(tiny.Store, InferenceDevice.Cpu, new ServeOptions(null, [new Uri("http://127.0.0.1:0")], TimeSpan.Zero, ModelLimits.Default));
        using HttpClient http = new() { BaseAddress = new Uri(server.Address) };
        Assert.Equal(200, await StatusAsync(_ => { }));
        Assert.Equal(400, await StatusAsync(r => r.Headers.Host = "rebound.example"));
        Assert.Equal(403, await StatusAsync(r => r.Headers.Add("Origin", "https://site.example")));
        Assert.Equal(415, await StatusAsync(r => (r.Method, r.Content) = (HttpMethod.Post, new StringContent("{}", null, "text/plain"))));

        async Task<int> StatusAsync(Action<HttpRequestMessage> change)
        {
            using HttpRequestMessage request = new(HttpMethod.Get, "/v1/models");
            change(request);
            using HttpResponseMessage response = await http.SendAsync(request);
            return (int)response.StatusCode;
        }
    }

    [Theory]
    [InlineData("http://127.0.0.1:5081", true)]
    [InlineData("http://localhost:1;http://[::1]:2", true)]
    [InlineData("http://0.0.0.0:5081", false)]
    [InlineData("https://127.0.0.1:5081", false)]
    [InlineData("5081", false)]
    [InlineData("", false)]
    public void Only_loopback_addresses_are_listened_on(string urls, bool accepted) =>
        Assert.Equal(accepted, ServeOptions.ParseUrls(urls, out string problem) is not null && problem.Length == 0);
}
