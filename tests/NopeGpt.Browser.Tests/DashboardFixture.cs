using Microsoft.Playwright;
using NopeGpt.Tests;

namespace NopeGpt.Browser.Tests;

/// <summary>One dashboard and one browser for the tests of a class; both start only where there is a browser at all.</summary>
public sealed class DashboardFixture : IAsyncLifetime
{
    private static readonly string[] Flags =
        ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

    private IPlaywright? _playwright;
    private IBrowser? _browser;

    internal RunningDashboard Dashboard { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        if (Needs.ChromiumPath is null) return;
        Dashboard = await RunningDashboard.StartAsync();
        _playwright = await Playwright.CreateAsync();
        _browser = await _playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions { ExecutablePath = Needs.ChromiumPath, Args = Flags });
    }

    /// <summary>A window of its own, whose console is watched.</summary>
    internal async Task<Window> OpenAsync(int width, int height, ColorScheme colors = ColorScheme.Light)
    {
        IBrowserContext context = await _browser!.NewContextAsync(new BrowserNewContextOptions
        {
            BaseURL = Dashboard.Address, ViewportSize = new ViewportSize { Width = width, Height = height }, ColorScheme = colors,
        });
        return new Window(context, await context.NewPageAsync());
    }

    public async Task DisposeAsync()
    {
        if (_browser is not null) await _browser.DisposeAsync();
        _playwright?.Dispose();
        if (Dashboard is not null) await Dashboard.DisposeAsync();
    }
}
