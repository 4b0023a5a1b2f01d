using System.Diagnostics;
using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Tests;
using static NopeGpt.Data.Tests.SourceFiles;

namespace NopeGpt.Data.Tests;

public sealed class HubTests : IDisposable
{
    private const string Name = "someone/stories";
    private readonly HubServer _server = new();
    private readonly TemporaryFolder _folder = new();

    public void Dispose()
    {
        _server.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task A_data_set_is_read_through_redirects_and_pages_and_again_without_the_network()
    {
        (Dictionary<string, byte[]> files, string[] texts) = await StoriesAsync(5);
        string commit = _server.Publish(Name, files, new { license = "mit" });
        _server.PageSize = 2;
        using HubClient client = new(_server.Options(_folder["cache"]));
        HubDataset dataset = await HubDataset.OpenAsync(client, HubName.Parse("hub:" + Name));
        Assert.Equal((commit, "mit", "train", 5), (dataset.Commit, dataset.Licence, dataset.Split, dataset.Files.Count));
        Assert.Equal(["train", "validation"], dataset.Splits);
        Source source = dataset.ToSource();
        Assert.Equal("text", ColumnMapping.Guess(source.Columns()).Text);
        Assert.Equal(texts, ReadTexts(source).Texts);
        Assert.Equal(dataset.Length, files.Where(f => f.Key.Contains("train", StringComparison.Ordinal)).Sum(f => f.Value.Length));

        int before = _server.Requests.Count;
        Source again = await Source.OpenAsync($"hub:{Name}@{commit}", client);
        Assert.Equal(texts, ReadTexts(again).Texts);
        Assert.Equal(source.Fingerprint, again.Fingerprint);
        Assert.Equal(before, _server.Requests.Count);
        Assert.Empty(Directory.GetFiles(_folder["cache"], "*.part", SearchOption.AllDirectories));
    }

    [Fact]
    public async Task A_revision_is_pinned_to_its_commit()
    {
        (Dictionary<string, byte[]> files, string[] texts) = await StoriesAsync(1);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        HubDataset dataset = await HubDataset.OpenAsync(client, new(Name));
        _server.Publish(Name, new Dictionary<string, byte[]> { ["data/train-00000-of-00001.parquet"] = [1, 2, 3] });
        Assert.Equal(texts, ReadTexts(dataset.ToSource()).Texts);
        Assert.NotEqual(dataset.Commit, (await HubDataset.OpenAsync(client, new(Name))).Commit);
    }

    [Fact]
    public async Task The_token_goes_to_the_hub_and_never_to_the_server_of_files()
    {
        (Dictionary<string, byte[]> files, string[] texts) = await StoriesAsync(1);
        _server.Publish(Name, files);
        _server.RequiredToken = "hf_secret";
        using (HubClient stranger = new(_server.Options(_folder["cache"])))
        {
            HubException refused = await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(stranger, new(Name)));
            Assert.Contains("gated", refused.Message, StringComparison.Ordinal);
            Assert.Contains("HF_TOKEN", refused.Message, StringComparison.Ordinal);
        }
        using HubClient client = new(_server.Options(_folder["cache"]) with { Token = "hf_secret" });
        Assert.Equal(texts, ReadTexts((await HubDataset.OpenAsync(client, new(Name))).ToSource()).Texts);
        Assert.Contains(_server.Requests, r => r.Path.StartsWith("/blob/", StringComparison.Ordinal));
        Assert.All(_server.Requests.Where(r => r.Path.StartsWith("/blob/", StringComparison.Ordinal)), r => Assert.Null(r.Token));
    }

    [Fact]
    public async Task A_download_that_breaks_off_goes_on_where_it_broke()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(300_000);
        using HubClient disposed = client;
        _server.FileFaults.Enqueue(new(TruncateAfter: 100_000));
        _server.FileFaults.Enqueue(new(Status: 503));
        _server.FileFaults.Enqueue(new(TruncateAfter: 50_000));
        Assert.Equal(data, await File.ReadAllBytesAsync(await GetAsync(dataset, file, client)));
        string?[] ranges = [.. _server.Requests.Where(r => r.Path.StartsWith("/blob/", StringComparison.Ordinal)).Select(r => r.Range)];
        Assert.Equal(4, ranges.Length);
        Assert.Null(ranges[0]);
        Assert.Equal("bytes=100000-", ranges[1]);
        Assert.Equal("bytes=150000-", ranges[3]);
    }

    [Fact]
    public async Task A_part_that_a_killed_process_left_is_used()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(300_000);
        using HubClient disposed = client;
        HubCache cache = new(_folder["cache"], Name);
        Directory.CreateDirectory(Path.GetDirectoryName(cache.Part(file))!);
        await File.WriteAllBytesAsync(cache.Part(file), data[..200_000]);
        Assert.Equal(data, await File.ReadAllBytesAsync(await GetAsync(dataset, file, client)));
        Assert.Equal("bytes=200000-", Assert.Single(_server.Requests, r => r.Path.StartsWith("/blob/", StringComparison.Ordinal)).Range);
    }

    [Theory]
    [InlineData("corrupt")]
    [InlineData("foreign part")]
    [InlineData("part too long")]
    [InlineData("whole part")]
    [InlineData("no ranges")]
    [InlineData("wrong range")]
    [InlineData("bad range")]
    public async Task What_is_damaged_or_does_not_fit_is_got_anew(string trouble)
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(50_000);
        using HubClient disposed = client;
        HubCache cache = new(_folder["cache"], Name);
        Directory.CreateDirectory(Path.GetDirectoryName(cache.Part(file))!);
        byte[]? part = trouble switch { "corrupt" => null, "foreign part" => new byte[20_000], "part too long" => new byte[60_000], "whole part" => data, _ => data[..10_000] };
        if (part is not null) await File.WriteAllBytesAsync(cache.Part(file), part);
        HubFault? fault = trouble switch { "corrupt" => new(Corrupt: true), "no ranges" => new(IgnoreRange: true), "wrong range" => new(WrongRange: true), "bad range" => new(Status: 416), _ => null };
        if (fault is not null) _server.FileFaults.Enqueue(fault);
        Assert.Equal(data, await File.ReadAllBytesAsync(await GetAsync(dataset, file, client)));
        if (trouble == "whole part") Assert.DoesNotContain(_server.Requests, r => r.Path.StartsWith("/blob/", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_hash_that_stays_wrong_is_an_error_and_nothing_stands_under_the_final_name()
    {
        (HubDataset dataset, HubFile file, _, HubClient client) = await OneFileAsync(10_000);
        using HubClient disposed = client;
        for (int i = 0; i < 5; i++) _server.FileFaults.Enqueue(new(Corrupt: true));
        HubException error = await Assert.ThrowsAsync<HubException>(() => GetAsync(dataset, file, client));
        Assert.Contains($"{Name}, {file.Path}: what came is damaged", error.Message, StringComparison.Ordinal);
        Assert.Contains(file.Sha256!, error.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(Path.Combine(_folder["cache"], "datasets--someone--stories", "blobs")));
    }

    [Theory]
    [InlineData(429)]
    [InlineData(500)]
    [InlineData(502)]
    [InlineData(503)]
    [InlineData(408)]
    public async Task Failures_that_pass_are_tried_again(int status)
    {
        (Dictionary<string, byte[]> files, string[] texts) = await StoriesAsync(2);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        for (int i = 0; i < 3; i++) _server.HubFaults.Enqueue(new(status));
        HubDataset dataset = await HubDataset.OpenAsync(client, new(Name));
        for (int i = 0; i < 3; i++) _server.FileFaults.Enqueue(new(status));
        Assert.Equal(texts, ReadTexts(dataset.ToSource(new() { FilesAhead = 0 })).Texts);
    }

    [Fact]
    public async Task A_failure_that_does_not_pass_ends_after_so_many_attempts_and_names_a_cure()
    {
        using HubClient client = new(_server.Options(_folder["cache"]));
        for (int i = 0; i < 20; i++) _server.HubFaults.Enqueue(new(503));
        HubException error = await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(client, new(Name)));
        Assert.Contains("503", error.Message, StringComparison.Ordinal);
        Assert.Contains("HF_ENDPOINT", error.Message, StringComparison.Ordinal);
        Assert.Equal(5, _server.Requests.Count);
    }

    [Fact]
    public async Task The_wait_that_the_server_asks_for_is_kept_unless_it_is_too_long()
    {
        (Dictionary<string, byte[]> files, _) = await StoriesAsync(1);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]) with { LongestWait = TimeSpan.FromSeconds(30) });
        _server.HubFaults.Enqueue(new(429, RetryAfter: 1));
        long began = Stopwatch.GetTimestamp();
        await HubDataset.OpenAsync(client, new(Name));
        Assert.True(Stopwatch.GetElapsedTime(began) >= TimeSpan.FromSeconds(0.95));
        _server.HubFaults.Enqueue(new(429, RetryAfter: 3600));
        HubException error = await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(client, new(Name)));
        Assert.Contains("60 minutes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_falls_silent_is_asked_again()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(50_000, TimeSpan.FromMilliseconds(300));
        using HubClient disposed = client;
        _server.FileFaults.Enqueue(new(Stall: true));
        Assert.Equal(data, await File.ReadAllBytesAsync(await GetAsync(dataset, file, client)));
        Assert.Equal("bytes=25000-", _server.Requests.Last().Range);
    }

    [Theory]
    [InlineData("hub:someone/nothing", "check the name")]
    [InlineData("hub:someone/stories@v9", "no such revision")]
    [InlineData("hub:someone/stories:absent", "has no subset \"absent\"")]
    [InlineData("hub:someone/stories:default:testing", "has no split \"testing\"; choose one of \"train\", \"validation\"")]
    public async Task What_the_hub_does_not_have_is_one_clear_sentence_at_once(string address, string reason)
    {
        (Dictionary<string, byte[]> files, _) = await StoriesAsync(1);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        HubException error = await Assert.ThrowsAsync<HubException>(() => Source.OpenAsync(address, client));
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
        Assert.True(_server.Requests.Count <= 3);
    }

    [Fact]
    public async Task A_hub_that_cannot_be_reached_is_named()
    {
        HubServer gone = new();
        HubOptions options = gone.Options(_folder["cache"]) with { Attempts = 2 };
        gone.Dispose();
        using HubClient client = new(options);
        HubException error = await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(client, new(Name)));
        Assert.Contains("127.0.0.1 cannot be reached", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_the_network_a_data_set_is_what_it_was_when_it_was_last_asked_for()
    {
        (Dictionary<string, byte[]> files, string[] texts) = await StoriesAsync(2);
        HubServer server = new();
        string commit = server.Publish(Name, files);
        using HubClient client = new(server.Options(_folder["cache"]));
        HubDataset dataset = await HubDataset.OpenAsync(client, new(Name));
        Assert.Null(dataset.Unreached);
        Assert.Equal(texts, ReadTexts(dataset.ToSource()).Texts);
        server.Dispose();
        dataset = await HubDataset.OpenAsync(client, new(Name));
        Assert.Equal((commit, dataset.Files.Count), (dataset.Commit, 2));
        Assert.Contains("127.0.0.1 cannot be reached", dataset.Unreached, StringComparison.Ordinal);
        Assert.Equal(texts, ReadTexts(dataset.ToSource()).Texts);
        await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(client, new(Name, Revision: "other")));
    }

    [Fact]
    public async Task What_the_hub_refuses_now_is_not_answered_from_before()
    {
        (Dictionary<string, byte[]> files, _) = await StoriesAsync(1);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        await HubDataset.OpenAsync(client, new(Name));
        _server.RequiredToken = "hf_secret";
        Assert.Contains("gated", (await Assert.ThrowsAsync<HubException>(() => HubDataset.OpenAsync(client, new(Name)))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_without_ranges_that_always_breaks_off_is_given_up()
    {
        (HubDataset dataset, HubFile file, _, HubClient client) = await OneFileAsync(600_000);
        using HubClient disposed = client;
        for (int i = 0; i < 50; i++) _server.FileFaults.Enqueue(new(IgnoreRange: true, TruncateAfter: 400_000));
        Assert.Contains("broke off", (await Assert.ThrowsAsync<HubException>(() => GetAsync(dataset, file, client))).Message, StringComparison.Ordinal);
        // The first brings something; the next five do not bring more.
        Assert.InRange(_server.Requests.Count(r => r.Path.StartsWith("/blob/", StringComparison.Ordinal)), 5, 6);
    }

    [Fact]
    public async Task Any_number_of_breaks_is_borne_as_long_as_each_try_brings_more()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(100_000);
        using HubClient disposed = client;
        for (int i = 0; i < 20; i++) _server.FileFaults.Enqueue(new(TruncateAfter: 4_000));
        Assert.Equal(data, await File.ReadAllBytesAsync(await GetAsync(dataset, file, client)));
    }

    [Fact]
    public async Task Two_that_share_the_cache_download_a_file_once()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(2_000_000);
        using HubClient disposed = client;
        using HubClient other = new(_server.Options(_folder["cache"]));
        string[] paths = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => Task.Run(() => GetAsync(dataset, file, i % 2 == 0 ? client : other))));
        Assert.Single(paths.Distinct());
        Assert.Equal(data, await File.ReadAllBytesAsync(paths[0]));
        Assert.Single(_server.Requests, r => r.Path.StartsWith("/blob/", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Another_process_keeps_its_lock_until_it_dies()
    {
        (HubDataset dataset, HubFile file, byte[] data, HubClient client) = await OneFileAsync(10_000);
        using HubClient disposed = client;
        (await new HubCache(_folder["cache"], Name).LockAsync(file, TimeProvider.System, default)).Dispose();
        string held = Assert.Single(Directory.GetFiles(_folder["cache"], "*.lock", SearchOption.AllDirectories));
        using Process other = Process.Start(new ProcessStartInfo("flock", ["--no-fork", held, "sh", "-c", "echo held; exec sleep 600"]) { RedirectStandardOutput = true })!;
        Assert.Equal("held", await other.StandardOutput.ReadLineAsync());
        Task<string> waiting = GetAsync(dataset, file, client);
        await Task.Delay(200);
        Assert.False(waiting.IsCompleted);
        other.Kill();
        Assert.Equal(data, await File.ReadAllBytesAsync(await waiting));
    }

    [Fact]
    public async Task Waiting_for_the_lock_of_another_can_be_cancelled()
    {
        (HubDataset dataset, HubFile file, _, HubClient client) = await OneFileAsync(10_000);
        using HubClient disposed = client;
        using IDisposable held = await new HubCache(_folder["cache"], Name).LockAsync(file, TimeProvider.System, default);
        using CancellationTokenSource cancel = new(100);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => new HubDownload(client, new(_folder["cache"], Name), Name, dataset.Commit).GetAsync(file, null, cancel.Token));
    }

    [Fact]
    public async Task Files_ahead_of_the_one_that_is_read_are_got_already()
    {
        (Dictionary<string, byte[]> files, _) = await StoriesAsync(5);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        HashSet<string> seen = [];
        Source source = (await HubDataset.OpenAsync(client, new(Name))).ToSource(new() { FilesAhead = 2 }, p =>
        {
            lock (seen) seen.Add(p.File);
        });
        using IEnumerator<Shard> shards = source.Shards().GetEnumerator();
        Assert.True(shards.MoveNext());
        Assert.True(SpinWait.SpinUntil(() => Count() == 3, TimeSpan.FromSeconds(10)), $"{Count()} files");
        int Count()
        {
            lock (seen) return seen.Count;
        }
    }

    [Fact]
    public async Task Progress_is_told_up_to_the_last_byte()
    {
        (Dictionary<string, byte[]> files, _) = await StoriesAsync(1);
        _server.Publish(Name, files);
        using HubClient client = new(_server.Options(_folder["cache"]));
        DownloadProgress? last = null;
        HubDataset dataset = await HubDataset.OpenAsync(client, new(Name));
        _ = ReadTexts(dataset.ToSource(progress: p => last = p));
        Assert.Equal(new DownloadProgress(dataset.Files[0].Path, dataset.Files[0].Size, dataset.Files[0].Size), last);
    }

    [Fact]
    public void The_environment_names_mirror_and_token()
    {
        Assert.Equal("https://mirror.example/hf", HubOptions.ParseEndpoint("https://mirror.example/hf").AbsoluteUri);
        Assert.Contains("HF_ENDPOINT", Assert.Throws<FormatException>(() => HubOptions.ParseEndpoint("mirror.example")).Message, StringComparison.Ordinal);
        using HubClient client = new(_server.Options("x") with { Endpoint = new("https://mirror.example/hf/") });
        Assert.Equal("https://mirror.example/hf/api/x", client.Address("/api/x").AbsoluteUri);
    }

    [Theory]
    [InlineData("hub:a/b", "a/b", null, null, "main")]
    [InlineData("a/b:c", "a/b", "c", null, "main")]
    [InlineData("hub:a/b:c:d@v1.0", "a/b", "c", "d", "v1.0")]
    [InlineData("hub:squad@refs/convert/parquet", "squad", null, null, "refs/convert/parquet")]
    public void Names_are_read_and_written(string text, string dataset, string? subset, string? split, string revision)
    {
        HubName name = HubName.Parse(text);
        Assert.Equal(new HubName(dataset, subset, split, revision), name);
        Assert.Equal(name, HubName.Parse(name.ToString()));
    }

    [Theory]
    [InlineData("hub:")]
    [InlineData("hub:a/b/c")]
    [InlineData("hub:../b")]
    [InlineData("hub:a/..")]
    [InlineData("hub:a/b:")]
    [InlineData("hub:a/b@")]
    [InlineData("hub:a b/c")]
    public void What_is_no_name_is_explained(string text) => Assert.Contains("hub:OWNER/NAME", Assert.Throws<FormatException>(() => HubName.Parse(text)).Message, StringComparison.Ordinal);

    private Task<string> GetAsync(HubDataset dataset, HubFile file, HubClient client) => new HubDownload(client, new(_folder["cache"], Name), Name, dataset.Commit).GetAsync(file, null, default);

    private async Task<(HubDataset, HubFile, byte[], HubClient)> OneFileAsync(int length, TimeSpan? timeout = null)
    {
        byte[] data = new byte[length];
        new Random(length).NextBytes(data);
        _server.Publish(Name, new Dictionary<string, byte[]> { ["train.parquet"] = data });
        HubOptions options = _server.Options(_folder["cache"]);
        HubClient client = new(options with { Timeout = timeout ?? options.Timeout });
        HubDataset dataset = await HubDataset.OpenAsync(client, new(Name));
        return (dataset, dataset.Files[0], data, client);
    }

    private async Task<(Dictionary<string, byte[]> Files, string[] Texts)> StoriesAsync(int count)
    {
        string[] texts = [.. Enumerable.Range(0, count * 50).Select(i => $"story number {i}")];
        Dictionary<string, byte[]> files = new() { ["README.md"] = Encoding.UTF8.GetBytes("# Stories"), [".gitattributes"] = [1] };
        for (int i = 0; i < count; i++)
            files[$"data/train-{i:00000}-of-{count:00000}.parquet"] = await File.ReadAllBytesAsync(await TextsAsync(_folder["x.parquet"], texts[(i * 50)..((i + 1) * 50)], 20));
        files["data/validation-00000-of-00001.parquet"] = await File.ReadAllBytesAsync(await TextsAsync(_folder["x.parquet"], ["held out"], 20));
        return (files, texts);
    }
}
