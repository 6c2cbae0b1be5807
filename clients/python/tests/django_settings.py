"""The settings of the Django project in django_project.py. test_django.py sets the database."""

import os

SECRET_KEY = "of no use to anybody"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("LEAD_AUDIT_TEST_SOCKET", ""),
        "NAME": os.environ.get("LEAD_AUDIT_TEST_DATABASE", ""),
        "USER": "app",
    }
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "lead_audit.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "lead_audit.django.AuditMiddleware",
]
ROOT_URLCONF = "tests.django_project"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, but not secure
LEAD_AUDIT = {"TRUSTED_PROXIES": ["10.0.0.0/8"]}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
