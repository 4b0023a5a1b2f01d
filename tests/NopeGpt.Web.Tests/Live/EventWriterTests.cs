using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.SignalR.Client;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Api;

namespace NopeGpt.Web.Tests.Live;

/// <summary>The trainer's side of live events, beside hubs that do not take them.</summary>
[Collection("dashboard")]
public sealed class EventWriterTests(DashboardFixture dashboard) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("away")]
    [InlineData("gone")]
    [InlineData("slow")]
    [InlineData("401")]
    [InlineData("500")]
    [InlineData("garbage")]
    public async Task A_hub_that_does_not_take_events_keeps_nobody_waiting(string kind)
    {
        const int Count = 3_000;
        Store store = new(_folder["root"]);
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        string url = $"http://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}";
        if (kind == "gone") listener.Stop();
        else _ = AnswerAsync(listener, kind switch { "slow" or "away" => null, "garbage" => "what?\r\n\r\n", _ => $"HTTP/1.1 {kind} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" });
        if (kind != "away") Point(store, new DashboardAddress(url, "key", 1));
        Scribe run = new(store);
        EventWriter events = new(run.Folder, store);
        Stopwatch clock = Stopwatch.StartNew();
        for (int step = 1; step <= Count; step++) events.Write(Scribe.Step(step, 1));
        TimeSpan told = clock.Elapsed;
        await events.DisposeAsync();
        // Hundreds of times what it takes: a wait for the hub would be longer still.
        Assert.True(told < TimeSpan.FromSeconds(5), $"telling took {told}");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), $"with the end it took {clock.Elapsed}");
        Assert.Equal(Enumerable.Range(1, Count).Select(i => (long)i), run.Folder.Events().Select(e => e.Sequence));
    }

    [Fact]
    public async Task A_hub_that_refuses_is_caught_up_when_it_takes_events_again()
    {
        const int Count = 60;
        Store pointer = new(_folder["root"]);
        DashboardAddress there = new(dashboard.Url.ToString(), dashboard.Key, 1);
        Point(pointer, there with { Key = "another" });
        Scribe run = new(dashboard.Store);
        List<long> seen = [];
        await using HubConnection viewer = dashboard.Hub();
        viewer.On<string, TrainingEvent[]>("Events", (_, fresh) =>
        {
            lock (seen) seen.AddRange(fresh.Select(e => e.Sequence));
        });
        await viewer.StartAsync();
        await viewer.InvokeAsync<TrainingEvent[]>("Follow", run.Id, 0L);
        await using EventWriter events = new(run.Folder, pointer);
        for (int step = 1; step <= Count; step++)
        {
            events.Write(Scribe.Step(step, 1));
            if (step == Count / 2) Point(pointer, there);
            if (step % 10 == 0) await Wait.UntilAsync(() => { lock (seen) return seen.Count == step; }, $"events up to {step}");
        }
        lock (seen) Assert.Equal(Enumerable.Range(1, Count).Select(i => (long)i), seen);
    }

    private static void Point(Store store, DashboardAddress address)
    {
        File.WriteAllText(store.DashboardPath + ".new", JsonSerializer.Serialize(address, TrainingEvent.Json));
        File.Move(store.DashboardPath + ".new", store.DashboardPath, overwrite: true);
    }

    private static async Task AnswerAsync(TcpListener listener, string? answer)
    {
        List<TcpClient> open = [];
        try
        {
            while (true)
            {
                TcpClient client = await listener.AcceptTcpClientAsync();
                open.Add(client);
                if (answer is null) continue;
                _ = await client.GetStream().ReadAsync(new byte[4096]);
                await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(answer));
                client.Dispose();
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or IOException)
        {
            foreach (TcpClient client in open) client.Dispose();
        }
    }
}
