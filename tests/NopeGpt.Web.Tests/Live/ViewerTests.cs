using System.Collections.Concurrent;
using System.Net.WebSockets;
using System.Text;
using Microsoft.AspNetCore.SignalR.Client;
using NopeGpt.Jobs;
using NopeGpt.Web.Live;
using NopeGpt.Web.Tests.Api;

namespace NopeGpt.Web.Tests.Live;

/// <summary>Viewers of one run who come late, are slow, or come back: each gets each event once, and the others never wait.</summary>
[Collection("dashboard")]
public sealed class ViewerTests(DashboardFixture dashboard)
{
    private readonly Scribe _run = new(dashboard.Store);

    [Fact]
    public async Task Many_viewers_get_each_event_once_and_in_order()
    {
        const int Viewers = 40, Batches = 10, Each = 3;
        List<Viewer> viewers = [];
        try
        {
            for (int i = 0; i < Viewers; i++) viewers.Add(await Viewer.StartAsync(dashboard, _run.Id));
            await using HubConnection trainer = await ConnectAsync(dashboard.Key);
            for (int batch = 0; batch < Batches; batch++)
                await trainer.InvokeAsync<long>("Publish", _run.Id, _run.Write([.. Enumerable.Range(0, Each).Select(i => Scribe.Step((batch * Each) + i + 1, 1))]));
            await Wait.UntilAsync(() => viewers.All(v => v.Seen.Count >= Batches * Each), "all events at all viewers");
            Assert.All(viewers, v => Assert.Equal(Enumerable.Range(1, Batches * Each).Select(i => (long)i), v.Seen));
        }
        finally
        {
            foreach (Viewer viewer in viewers) await viewer.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(255)]
    [InlineData(256)]
    [InlineData(1_300)]
    [InlineData(1_999)]
    public async Task One_who_comes_late_reads_page_by_page_what_was_before(int last)
    {
        const int Count = 2_000;
        _run.Write([.. Enumerable.Range(1, Count).Select(i => Scribe.Step(i, 1))]);
        await using Viewer late = await Viewer.StartAsync(dashboard, _run.Id, last);
        _run.Write(Scribe.Step(Count + 1, 1));
        await Wait.UntilAsync(() => late.Seen.LastOrDefault() > Count, "the event after them");
        Assert.Equal(Enumerable.Range(last + 1, Count + 1 - last).Select(i => (long)i), late.Seen);
    }

    [Fact]
    public async Task One_who_loses_the_connection_goes_on_where_it_was_while_events_come()
    {
        using CancellationTokenSource end = new();
        Task writing = Task.Run(async () =>
        {
            for (int step = 1; !end.IsCancellationRequested; step++)
            {
                _run.Write(Scribe.Step(step, 1));
                await Task.Delay(1);
            }
        });
        await using Viewer viewer = await Viewer.StartAsync(dashboard, _run.Id);
        for (int round = 1; round <= 3; round++)
        {
            int before = viewer.Seen.Count;
            await Wait.UntilAsync(() => viewer.Seen.Count > before + 20, $"events in round {round}");
            await viewer.LoseAsync();
        }
        await end.CancelAsync();
        await writing;
        long last = _run.Write(Scribe.Step(1_000_000, 1))[0].Sequence;
        await Wait.UntilAsync(() => viewer.Seen.LastOrDefault() == last, "the last event");
        Assert.Equal(Enumerable.Range(1, (int)last).Select(i => (long)i), viewer.Seen);
    }

    [Fact]
    public async Task One_who_does_not_read_holds_up_no_other_and_is_caught_up_when_it_comes_back()
    {
        const int Batches = 120;
        string text = new('x', 100_000);
        using ClientWebSocket stuck = await FollowRawAsync();
        await using Viewer other = await Viewer.StartAsync(dashboard, _run.Id);
        await using HubConnection trainer = await ConnectAsync(dashboard.Key);
        // Far more than the sockets of a connection hold.
        for (int i = 1; i <= Batches; i++) await trainer.InvokeAsync<long>("Publish", _run.Id, _run.Write(new SampleEvent(i, "Once", text)));
        await Wait.UntilAsync(() => other.Seen.Count == Batches, "all events at the other");
        Assert.Equal(Enumerable.Range(1, Batches).Select(i => (long)i), other.Seen);
        stuck.Abort();
        await using Viewer back = await Viewer.StartAsync(dashboard, _run.Id, after: 3);
        await Wait.UntilAsync(() => back.Seen.Count == Batches - 3, "what it had missed");
        Assert.Equal(Enumerable.Range(4, Batches - 3).Select(i => (long)i), back.Seen);
    }

    [Theory]
    [InlineData("../runs")]
    [InlineData("20260101-000000-0000")]
    [InlineData("")]
    public async Task Of_a_run_that_does_not_exist_there_is_nothing_to_read(string id)
    {
        await using HubConnection hub = await ConnectAsync();
        Assert.Empty(await hub.InvokeAsync<TrainingEvent[]>("Read", id, 0L));
        Assert.Empty(await hub.InvokeAsync<TrainingEvent[]>("Read", _run.Id, long.MinValue));
    }

    private async Task<HubConnection> ConnectAsync(string? key = null)
    {
        HubConnection hub = dashboard.Hub(key);
        await hub.StartAsync();
        return hub;
    }

    /// <summary>A client that follows the run and then reads nothing more from its socket.</summary>
    private async Task<ClientWebSocket> FollowRawAsync()
    {
        ClientWebSocket socket = new();
        socket.Options.SetBuffer(4096, 4096);
        await socket.ConnectAsync(new UriBuilder(dashboard.Url) { Scheme = "ws", Path = "/hubs/metrics" }.Uri, CancellationToken.None);
        foreach (string message in new[] { """{"protocol":"json","version":1}""", $$"""{"type":1,"invocationId":"1","target":"Follow","arguments":["{{_run.Id}}",0]}""" })
            await socket.SendAsync(Encoding.UTF8.GetBytes(message + '\u001e'), WebSocketMessageType.Text, true, CancellationToken.None);
        byte[] buffer = new byte[4096];
        string answer = "";
        while (!answer.Contains("\"invocationId\":\"1\"", StringComparison.Ordinal)) answer += Encoding.UTF8.GetString(buffer, 0, (await socket.ReceiveAsync(buffer, CancellationToken.None)).Count);
        return socket;
    }

    /// <summary>A client as one writes it: it follows from the last event that it has, and reads what is missing before what comes.</summary>
    private sealed class Viewer : IAsyncDisposable
    {
        private readonly DashboardFixture _dashboard;
        private readonly string _run;
        private readonly SemaphoreSlim _one = new(1);
        private HubConnection _hub;
        private long _last;

        private Viewer(DashboardFixture dashboard, string run, long after) => (_dashboard, _run, _last, _hub) = (dashboard, run, after, dashboard.Hub(null));

        public ConcurrentQueue<long> Seen { get; } = [];

        public static async Task<Viewer> StartAsync(DashboardFixture dashboard, string run, long after = 0)
        {
            Viewer viewer = new(dashboard, run, after);
            await viewer.FollowAsync();
            return viewer;
        }

        /// <summary>The connection breaks, and a new one is made.</summary>
        public async Task LoseAsync()
        {
            await _hub.DisposeAsync();
            _hub = _dashboard.Hub(null);
            await FollowAsync();
        }

        public async ValueTask DisposeAsync()
        {
            await _hub.DisposeAsync();
            _one.Dispose();
        }

        private async Task FollowAsync()
        {
            HubConnection hub = _hub;
            hub.On<string, TrainingEvent[]>("Events", (_, events) => TakeAsync(hub, events));
            await hub.StartAsync();
            await TakeAsync(hub, await hub.InvokeAsync<TrainingEvent[]>("Follow", _run, _last));
        }

        private async Task TakeAsync(HubConnection hub, TrainingEvent[] events)
        {
            if (events.Length == 0) return;
            await _one.WaitAsync();
            try
            {
                while (events[0].Sequence > _last + 1 && await hub.InvokeAsync<TrainingEvent[]>("Read", _run, _last) is { Length: > 0 } missing) Note(missing);
                Note(events);
            }
            catch (Exception) when (hub != _hub) { /* lost in the midst: the next connection reads it */ }
            finally { _one.Release(); }
        }

        private void Note(TrainingEvent[] events)
        {
            foreach (TrainingEvent one in events.Where(e => e.Sequence > _last))
            {
                Seen.Enqueue(one.Sequence);
                _last = one.Sequence;
            }
        }
    }
}
