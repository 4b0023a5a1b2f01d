using System.Data.Common;
using System.Globalization;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Sends what is in the outbox: to each receiver by itself, so that a slow one holds up no other, and again after growing pauses. Of several
/// processes of one store one sends. A receiver that took a notice and answered too late gets it again, with the same id.</summary>
internal sealed class WebhookSender(NoticeOutbox outbox, NoticeOptions options, RunLedger ledger, TimeProvider time, ILogger<WebhookSender> log) : BackgroundService
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(5);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (options.Webhooks.Count == 0) return;
        using FileStream alone = await AloneAsync(stoppingToken).ConfigureAwait(false);
        while (!await SettleAsync(stoppingToken).ConfigureAwait(false)) await Task.Delay(LookEvery, time, stoppingToken).ConfigureAwait(false);
        // Redirects are not followed: what is sent is for this receiver. Nor are cookies kept.
        using SocketsHttpHandler handler = new() { AllowAutoRedirect = false, UseCookies = false, PooledConnectionLifetime = TimeSpan.FromMinutes(2) };
        using HttpClient http = new(handler) { Timeout = options.Timeout };
        http.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("NopeGpt", typeof(WebhookSender).Assembly.GetName().Version?.ToString(2)));
        await Task.WhenAll(options.Webhooks.Select(w => SendAsync(http, w, stoppingToken))).ConfigureAwait(false);
    }

    /// <summary>The right to send for this store; waits until no other process has it.</summary>
    private async Task<FileStream> AloneAsync(CancellationToken cancel)
    {
        while (true)
        {
            try
            {
                Directory.CreateDirectory(outbox.Folder);
                return new FileStream(Path.Combine(outbox.Folder, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { await Task.Delay(LookEvery, time, cancel).ConfigureAwait(false); }
        }
    }

    private async Task<bool> SettleAsync(CancellationToken cancel)
    {
        try
        {
            await outbox.SettleAsync(options.Webhooks, async left => await ledger.FindAsync(left.Run, cancel).ConfigureAwait(false) is { } row && row.State == left.State).ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or DbException or DbUpdateException)
        {
            log.LogWarning("The notices in {Folder} cannot be read just now: {Message}", outbox.Folder, e.Message);
            return false;
        }
    }

    private async Task SendAsync(HttpClient http, Webhook webhook, CancellationToken stopping)
    {
        using SemaphoreSlim wake = new(0, 1);
        Dictionary<string, (long Since, TimeSpan Pause)> pauses = [];
        void Wake()
        {
            // Full when it is awake already.
            try { wake.Release(); }
            catch (SemaphoreFullException) { }
        }
        outbox.Added += Wake;
        try
        {
            while (true)
            {
                try
                {
                    IReadOnlyList<string> pending = outbox.Pending(webhook);
                    foreach (string gone in pauses.Keys.Except(pending).ToList()) pauses.Remove(gone);
                    foreach (string path in pending.Where(p => !pauses.TryGetValue(p, out var pause) || time.GetElapsedTime(pause.Since) >= pause.Pause))
                    {
                        if (await TryAsync(http, webhook, path, stopping).ConfigureAwait(false) is { } pause) pauses[path] = (time.GetTimestamp(), pause);
                    }
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("The notices in {Folder} cannot be sent just now: {Message}", outbox.Folder, e.Message); }
                TimeSpan next = pauses.Values.Select(p => p.Pause - time.GetElapsedTime(p.Since)).Append(LookEvery).Min();
                await wake.WaitAsync(next > TimeSpan.Zero ? next + TimeSpan.FromMilliseconds(1) : TimeSpan.Zero, stopping).ConfigureAwait(false);
            }
        }
        finally { outbox.Added -= Wake; }
    }

    /// <returns>The pause before the next try; null where there is none.</returns>
    private async Task<TimeSpan?> TryAsync(HttpClient http, Webhook webhook, string path, CancellationToken stopping)
    {
        if (outbox.Read(path) is not { } notice) return null;
        string? fault = await PostAsync(http, webhook, notice, stopping).ConfigureAwait(false);
        if (fault is null || notice.Tries >= options.Pauses.Count)
        {
            if (fault is not null) log.LogWarning("The notice {Id} was not taken by {Webhook} ({Fault}), and is given up after {Tries} tries", notice.Id, webhook, fault, notice.Tries + 1);
            File.Delete(path);
            return null;
        }
        TimeSpan pause = options.Pauses[notice.Tries];
        log.LogWarning("The notice {Id} was not taken by {Webhook} ({Fault}); it is sent again in {Seconds:0.#} s", notice.Id, webhook, fault, pause.TotalSeconds);
        NoticeOutbox.Update(path, notice with { Tries = notice.Tries + 1 });
        return pause;
    }

    /// <returns>What went wrong, without the address; null where it was taken.</returns>
    private async Task<string?> PostAsync(HttpClient http, Webhook webhook, PendingNotice notice, CancellationToken stopping)
    {
        byte[] body = Encoding.UTF8.GetBytes(notice.Body);
        using HttpRequestMessage request = new(HttpMethod.Post, webhook.Address) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json", "utf-8");
        request.Headers.Add("X-NopeGpt-Notice", notice.Id);
        request.Headers.Add("X-NopeGpt-Try", (notice.Tries + 1).ToString(CultureInfo.InvariantCulture));
        if (options.Secret.Length > 0) request.Headers.Add("X-NopeGpt-Signature", "sha256=" + Convert.ToHexStringLower(HMACSHA256.HashData(Encoding.UTF8.GetBytes(options.Secret), body)));
        try
        {
            using HttpResponseMessage answer = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stopping).ConfigureAwait(false);
            return answer.IsSuccessStatusCode ? null : $"status {(int)answer.StatusCode}";
        }
        catch (OperationCanceledException) when (!stopping.IsCancellationRequested) { return $"no answer within {options.Timeout.TotalSeconds:0.#} s"; }
        catch (HttpRequestException e) { return e.HttpRequestError == HttpRequestError.Unknown ? "no connection" : e.HttpRequestError.ToString(); }
    }
}
